#include "runtime/engine/text/pattern.h"

#include <utility>

#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "runtime/engine/text/char_set_pattern.h"
#include "runtime/engine/text/word_patterns.h"

namespace conclave::engine {
namespace {

class FunctionPattern final : public Pattern {
  public:
    explicit FunctionPattern(MatchFunction function) : match_(function) {}
    size_t match(const Chars& text, size_t at) const override { return match_(text, at); }

  private:
    MatchFunction match_;
};

class LiteralPattern final : public Pattern {
  public:
    explicit LiteralPattern(std::vector<char32_t> code) : code_(std::move(code)) {}
    size_t match(const Chars& text, size_t at) const override {
        if (code_.empty() || text.size() - at < code_.size()) return 0;
        for (size_t i = 0; i < code_.size(); ++i) {
            if (text.code[at + i] != code_[i]) return 0;
        }
        return at + code_.size();
    }

  private:
    std::vector<char32_t> code_;
};

// Literals are searched for naively; this bounds the work per character of text.
constexpr size_t kMaxLiteralChars = 64;

}  // namespace

std::unique_ptr<const Pattern> make_pattern(std::string_view regex) {
    if (const WordPattern* known = find_word_pattern(regex)) {
        return std::make_unique<FunctionPattern>(known->match);
    }
    return make_char_set_pattern(regex);
}

std::unique_ptr<const Pattern> gpt2_pattern() {
    return std::make_unique<FunctionPattern>(gpt2_word_pattern().match);
}

std::unique_ptr<const Pattern> parse_pattern(const Json& pattern, const std::string& file) {
    if (find_json(pattern, "Regex", file)) {
        const std::string regex = get_string(pattern, "Regex", file);
        auto known = make_pattern(regex);
        if (known) return known;
        throw Error(ErrorCode::kUnsupported, "this tokenizer pattern is not served")
            .file(file)
            .found(in_quotes(regex, 600));
    }
    const std::string literal = get_string(pattern, "String", file);
    Chars chars;
    chars.assign(literal);
    if (chars.size() > kMaxLiteralChars) {
        throw Error(ErrorCode::kUnsupported, "tokenizer pattern String is too long")
            .file(file)
            .expected("at most " + std::to_string(kMaxLiteralChars) + " characters")
            .found(std::to_string(chars.size()));
    }
    return std::make_unique<LiteralPattern>(std::move(chars.code));
}

void find_spans(const Pattern& pattern, std::string_view text, Chars& chars,
                std::vector<Span>& spans) {
    chars.assign(text);
    spans.clear();
    size_t gap = 0;
    for (size_t at = 0; at < chars.size();) {
        const size_t end = pattern.match(chars, at);
        if (end == 0) {
            ++at;
            continue;
        }
        if (at > gap) spans.push_back({chars.offset[gap], chars.offset[at], false});
        spans.push_back({chars.offset[at], chars.offset[end], true});
        at = gap = end;
    }
    if (chars.size() > gap) spans.push_back({chars.offset[gap], text.size(), false});
}

std::string replace_matches(const Pattern& pattern, std::string_view text,
                            std::string_view content) {
    Chars chars;
    std::vector<Span> spans;
    find_spans(pattern, text, chars, spans);
    std::string out;
    out.reserve(text.size());
    for (const Span& span : spans) {
        out += span.match ? content : text.substr(span.begin, span.end - span.begin);
        if (out.size() <= kMaxTextBytes) continue;
        throw Error(ErrorCode::kResource, "text becomes too long as the tokenizer replaces parts")
            .expected("at most " + std::to_string(kMaxTextBytes) + " bytes");
    }
    return out;
}

}  // namespace conclave::engine
