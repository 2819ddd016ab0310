// Byte-pair encoding of one word: its characters are tokens at first, then the pair of neighbours
// with the lowest rank becomes one token, the leftmost of equals first, until no pair has a rank.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/engine/text/tokenizer.h"

namespace conclave::engine {

/// Ids stay below it: what a table over all ids costs is bounded before the file is believed.
inline constexpr int64_t kMaxTokenIds = int64_t{1} << 22;
inline constexpr TokenId kNoToken = -1;

class Bpe {
  public:
    /// Of the "model" object. Throws kBadContent, or kUnsupported for options not served.
    Bpe(const Json& model, const std::string& file);
    Bpe(const Bpe&) = delete;
    Bpe& operator=(const Bpe&) = delete;

    /// Working memory of encode(), for reuse from word to word.
    struct Scratch {
        struct Symbol {
            TokenId id;
            uint32_t left, right;  ///< neighbours; kNowhere at the ends
        };
        struct Candidate {
            uint64_t order;  ///< rank, then position of the left symbol
            TokenId left, right;
        };
        std::vector<Symbol> symbols;
        std::vector<Candidate> heap;
    };
    /// Appends the ids of `word` to `out`. O(n log n); `word` is valid UTF-8 below 2^32 bytes.
    void encode(std::string_view word, Scratch& scratch, std::vector<TokenId>& out) const;

    /// kNoToken where the vocabulary has no such token.
    TokenId find(std::string_view token) const;
    /// By id; empty where an id has no token.
    const std::vector<std::string>& tokens() const { return tokens_; }

  private:
    struct Merge {
        uint32_t right, rank;
        TokenId id;
    };

    void read_vocab(const Json& model, const std::string& file);
    void read_merges(const Json& model, const std::string& file);
    void read_unknown(const Json& model, const std::string& file);
    void split(std::string_view word, std::vector<Scratch::Symbol>& symbols) const;
    bool fall_back(std::string_view character, std::vector<Scratch::Symbol>& symbols) const;
    const Merge* find_merge(TokenId left, TokenId right) const;
    void offer(uint32_t left, Scratch& scratch) const;
    void merge_all(Scratch& scratch) const;

    std::vector<std::string> tokens_;
    std::unordered_map<std::string_view, TokenId> ids_;  ///< views into tokens_
    std::vector<TokenId> short_chars_;                   ///< by code point, below its size
    std::array<TokenId, 256> byte_tokens_;               ///< <0xXX>, where byte_fallback is on
    std::vector<uint32_t> first_merge_;  ///< by left id: where its part of merges_ begins
    std::vector<Merge> merges_;          ///< sorted by left, then right
    TokenId unknown_ = kNoToken;
    bool fuse_unknown_ = false, ignore_merges_ = false, byte_fallback_ = false;
};

}  // namespace conclave::engine
