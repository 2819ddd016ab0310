#include <algorithm>
#include <tuple>
#include <unordered_map>

#include "runtime/base/text.h"
#include "sharding/checkpoint/gguf/documents.h"

namespace conclave::sharding {
namespace {

// Bytes hashed, the sum of the squares of the tokens' lengths: 6 million for 32000 tokens of Llama,
// 30 million for 256000 of Gemma.
constexpr uint64_t kMaxWork = uint64_t{1} << 28;
constexpr size_t kMaxMerges = size_t{1} << 21;  // Gemma's are 600 thousand

struct Candidate {
    float score;
    uint32_t left_chars, right_chars;
    GgufMerge merge;
};

bool begins_char(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

uint32_t count_chars(std::string_view text) {
    return static_cast<uint32_t>(std::count_if(text.begin(), text.end(), begins_char));
}

Error too_much(const char* what, const std::string& file) {
    return Error(ErrorCode::kUnsupported, std::string("vocabulary of scores has ") + what)
        .file(file);
}

}  // namespace

std::vector<GgufMerge> gguf_merges(const std::vector<std::string_view>& tokens,
                                   const std::vector<float>& scores,
                                   const std::vector<bool>& merged, const std::string& file) {
    std::unordered_map<std::string_view, uint32_t> known;
    uint64_t work = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
        if (!merged[i]) continue;
        const uint64_t bytes = tokens[i].size();
        if (bytes > kMaxWork || (work += bytes * bytes) > kMaxWork)
            throw too_much("tokens too long to be taken apart", file);
        known.emplace(tokens[i], static_cast<uint32_t>(i));
    }
    std::vector<Candidate> found;
    for (size_t i = 0; i < tokens.size(); ++i) {
        if (!merged[i]) continue;
        const std::string_view token = tokens[i];
        const uint32_t chars = count_chars(token);
        uint32_t left_chars = 1;
        for (size_t cut = 1; cut < token.size(); ++cut) {
            if (!begins_char(token[cut])) continue;
            if (known.count(token.substr(0, cut)) && known.count(token.substr(cut)))
                found.push_back({scores[i],
                                 left_chars,
                                 chars - left_chars,
                                 {static_cast<uint32_t>(i), static_cast<uint32_t>(cut)}});
            ++left_chars;
        }
        if (found.size() > kMaxMerges) throw too_much("too many merges", file);
    }
    // Ties as Hugging Face's converter breaks them.
    std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
        return std::tie(b.score, b.left_chars, b.right_chars, a.merge.id) <
               std::tie(a.score, a.left_chars, a.right_chars, b.merge.id);
    });
    std::vector<GgufMerge> merges;
    merges.reserve(found.size());
    for (const Candidate& c : found) merges.push_back(c.merge);
    return merges;
}

}  // namespace conclave::sharding
