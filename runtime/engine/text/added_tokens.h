// Tokens cut out of the text before it is split into words: control tokens and the like.
#pragma once
#include <bitset>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/engine/text/bpe.h"

namespace conclave::engine {

struct AddedToken {
    std::string content;
    TokenId id;
    bool single_word, lstrip, rstrip, normalized, special;
};

/// Of the "added_tokens" list, which may be absent. An id is the vocabulary's where that has the
/// content. Throws kBadContent, also where two tokens claim one id.
std::vector<AddedToken> parse_added_tokens(const Json& tokenizer, const Bpe& bpe,
                                           const std::string& file);

/// Finds a set of them in a text: leftmost first, of those the longest.
class AddedTokenSplitter {
  public:
    /// Later tokens win over earlier ones of the same content; empty contents are never found.
    explicit AddedTokenSplitter(const std::vector<AddedToken>& tokens);

    struct Piece {
        size_t begin, end;  ///< bytes
        TokenId id;         ///< kNoToken: text between tokens
    };
    /// In order. Pieces overlap only where a token took in spaces that are tokens themselves.
    std::vector<Piece> split(std::string_view text) const;

  private:
    struct Node {
        std::map<unsigned char, uint32_t> next;
        int32_t token = -1;  ///< index into tokens_
    };
    struct Hit {
        size_t end;
        int32_t token;
    };
    Hit longest_at(std::string_view text, size_t at) const;

    std::vector<AddedToken> tokens_;
    std::vector<Node> trie_;
    std::bitset<256> first_bytes_;
};

}  // namespace conclave::engine
