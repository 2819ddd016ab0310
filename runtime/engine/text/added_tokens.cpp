#include "runtime/engine/text/added_tokens.h"

#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "runtime/engine/text/unicode.h"

namespace conclave::engine {
namespace {

// Bounds what one position of the text can cost, and the trie. Real ones have less than 64.
constexpr size_t kMaxContentBytes = 512;
// Some 100 bytes each; a thousand tokens of 20 bytes need 20 thousand.
constexpr size_t kMaxTrieNodes = size_t{1} << 21;

AddedToken parse_one(const Json& entry, const Bpe& bpe, const std::string& file) {
    AddedToken token;
    token.content = get_string(entry, "content", file);
    token.id = static_cast<TokenId>(get_int(entry, "id", 0, kMaxTokenIds - 1, file));
    token.single_word = get_bool_or(entry, "single_word", false, file);
    token.lstrip = get_bool_or(entry, "lstrip", false, file);
    token.rstrip = get_bool_or(entry, "rstrip", false, file);
    token.special = get_bool_or(entry, "special", false, file);
    token.normalized = get_bool_or(entry, "normalized", !token.special, file);
    if (token.content.size() > kMaxContentBytes) {
        throw Error(ErrorCode::kUnsupported, "added token content is too long")
            .file(file)
            .expected("at most " + std::to_string(kMaxContentBytes) + " bytes")
            .found(std::to_string(token.content.size()));
    }
    if (const TokenId known = bpe.find(token.content); known != kNoToken) token.id = known;
    return token;
}

}  // namespace

std::vector<AddedToken> parse_added_tokens(const Json& tokenizer, const Bpe& bpe,
                                           const std::string& file) {
    std::vector<AddedToken> tokens;
    if (!find_json(tokenizer, "added_tokens", file)) return tokens;
    std::map<TokenId, std::string> claimed;
    for (const Json& entry : get_array(tokenizer, "added_tokens", file)) {
        tokens.push_back(parse_one(entry, bpe, file));
        const AddedToken& token = tokens.back();
        std::string owner = claimed.emplace(token.id, token.content).first->second;
        const auto id = static_cast<size_t>(token.id);
        if (id < bpe.tokens().size() && !bpe.tokens()[id].empty()) owner = bpe.tokens()[id];
        if (owner != token.content) {
            throw Error(ErrorCode::kBadContent,
                        "added_tokens gives id " + std::to_string(id) + " of another token")
                .file(file)
                .found(in_quotes(token.content) + " and " + in_quotes(owner));
        }
    }
    return tokens;
}

AddedTokenSplitter::AddedTokenSplitter(const std::vector<AddedToken>& tokens)
    : tokens_(tokens), trie_(1) {
    for (size_t i = 0; i < tokens_.size(); ++i) {
        const std::string& content = tokens_[i].content;
        if (content.empty()) continue;
        uint32_t node = 0;
        for (const char c : content) {
            const auto fresh = static_cast<uint32_t>(trie_.size());
            const auto [edge, added] =
                trie_[node].next.emplace(static_cast<unsigned char>(c), fresh);
            node = edge->second;
            if (added) trie_.emplace_back();
        }
        if (trie_.size() > kMaxTrieNodes) {
            throw Error(ErrorCode::kUnsupported, "too much text in added_tokens");
        }
        trie_[node].token = static_cast<int32_t>(i);
        first_bytes_.set(static_cast<unsigned char>(content[0]));
    }
}

AddedTokenSplitter::Hit AddedTokenSplitter::longest_at(std::string_view text, size_t at) const {
    Hit best{at, -1};
    uint32_t node = 0;
    for (size_t i = at; i < text.size(); ++i) {
        const auto edge = trie_[node].next.find(static_cast<unsigned char>(text[i]));
        if (edge == trie_[node].next.end()) break;
        node = edge->second;
        if (trie_[node].token >= 0) best = {i + 1, trie_[node].token};
    }
    return best;
}

std::vector<AddedTokenSplitter::Piece> AddedTokenSplitter::split(std::string_view text) const {
    const auto is_space_at = [&](size_t at) { return char_class(next_char(text, at)) & kSpace; };
    const auto is_space_before = [&](size_t at) {
        return char_class(previous_char(text, at)) & kSpace;
    };
    const auto is_word_at = [&](size_t at) { return is_word_char(next_char(text, at)); };
    const auto is_word_before = [&](size_t at) { return is_word_char(previous_char(text, at)); };

    std::vector<Piece> pieces;
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
        Hit hit{at, -1};
        if (first_bytes_.test(static_cast<unsigned char>(text[at]))) hit = longest_at(text, at);
        if (hit.token < 0) {
            ++at;
            continue;
        }
        const AddedToken& token = tokens_[static_cast<size_t>(hit.token)];
        size_t begin = at, end = hit.end;
        at = hit.end;
        if (token.single_word &&
            ((begin > 0 && is_word_before(begin)) || (end < text.size() && is_word_at(end)))) {
            continue;
        }
        while (token.lstrip && begin > done && is_space_before(begin)) previous_char(text, begin);
        while (token.rstrip && end < text.size() && is_space_at(end)) next_char(text, end);
        if (begin > done) pieces.push_back({done, begin, kNoToken});
        pieces.push_back({begin, end, token.id});
        // The search goes on behind the match, not behind the spaces it took in.
        done = end;
    }
    if (done < text.size()) pieces.push_back({done, text.size(), kNoToken});
    return pieces;
}

}  // namespace conclave::engine
