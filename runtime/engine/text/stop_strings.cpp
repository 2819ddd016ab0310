#include "runtime/engine/text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "runtime/engine/text/unicode.h"

namespace conclave::engine {

StopStrings::StopStrings(std::vector<std::string> texts) {
    if (texts.size() > kMost)
        throw Error(ErrorCode::kUsage, "too many stop strings")
            .expected("at most " + std::to_string(kMost))
            .found(std::to_string(texts.size()));
    for (std::string& bytes : texts) {
        if (bytes.empty()) throw Error(ErrorCode::kUsage, "a stop string is empty");
        if (bytes.size() > kMostBytes)
            throw Error(ErrorCode::kUsage, "a stop string is too long")
                .expected("at most " + std::to_string(kMostBytes) + " bytes")
                .found(std::to_string(bytes.size()));
        if (valid_utf8(bytes) != bytes)
            throw Error(ErrorCode::kUsage, "a stop string is not valid UTF-8")
                .found(in_quotes(bytes));
        Text text{std::move(bytes), {0}};
        // The borders of a text are found by looking for it in itself, from its second byte on.
        for (size_t n = 0; n < text.bytes.size(); ++n) {
            if (n > 0) text.step(text.bytes[n]);
            text.fallback.push_back(text.length);
        }
        text.length = 0;
        texts_.push_back(std::move(text));
    }
}

void StopStrings::Text::step(char c) {
    while (length > 0 && bytes[length] != c) length = fallback[length];
    if (bytes[length] == c) ++length;
}

std::string StopStrings::add(std::string_view piece) {
    if (matched_) return {};
    for (const char c : piece) {
        held_ += c;
        size_t longest = 0;
        for (Text& text : texts_) {
            text.step(c);
            if (text.length == text.bytes.size()) longest = std::max(longest, text.length);
        }
        if (longest == 0) continue;
        matched_ = true;
        held_.resize(held_.size() - longest);
        return std::exchange(held_, {});
    }
    size_t keep = 0;
    for (const Text& text : texts_) keep = std::max(keep, text.length);
    std::string out = held_.substr(0, held_.size() - keep);
    held_.erase(0, out.size());
    return out;
}

std::string StopStrings::finish() { return std::exchange(held_, {}); }

}  // namespace conclave::engine
