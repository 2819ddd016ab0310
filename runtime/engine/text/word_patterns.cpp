#include "runtime/engine/text/word_patterns.h"

#include <algorithm>
#include <iterator>

namespace conclave::engine {
namespace {

// Every helper is one alternative: the end of its match at `at`, 0 for none. A matcher tries them
// in the order of the expression, since the first that matches wins, not the longest.

// 's|'t|'re|'ve|'m|'ll|'d ; with `fold`, (?i: ) of it, which also takes U+017F for s.
size_t contraction(const Chars& t, size_t at, bool fold) {
    const auto letter = [&](size_t i) -> char32_t {
        if (i >= t.size()) return 0;
        const char32_t c = t.code[i];
        if (!fold) return c;
        if (c == 0x17F) return 's';
        return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
    };
    if (t.code[at] != '\'') return 0;
    const char32_t a = letter(at + 1);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
    const char32_t b = letter(at + 2);
    if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l')) return at + 3;
    return 0;
}

// \p{N}{1,most}
size_t digits(const Chars& t, size_t at, size_t most) {
    size_t end = at;
    while (end - at < most && t.is(end, kNumber)) ++end;
    return end > at ? end : 0;
}

//  ?[<wanted>]+
size_t run_after_space(const Chars& t, size_t at, CharClass wanted) {
    const size_t begin = t.code[at] == ' ' ? at + 1 : at;
    const size_t end = t.skip(begin, wanted);
    return end > begin ? end : 0;
}

//  ?[^\s<excluded>]+ , where `excluded` holds \s
size_t others_after_space(const Chars& t, size_t at, CharClass excluded) {
    size_t end = t.code[at] == ' ' ? at + 1 : at;
    const size_t begin = end;
    while (end < t.size() && !(t.classes[end] & excluded)) ++end;
    return end > begin ? end : 0;
}

// \s?[<wanted>]+
template <CharClass wanted>
size_t run_after_any_space(const Chars& t, size_t at) {
    if (t.is(at, kSpace) && t.is(at + 1, wanted)) return t.skip(at + 1, wanted);
    return t.is(at, wanted) ? t.skip(at, wanted) : 0;
}

// [^\r\n<excluded>]?[<wanted>]+
size_t letters_after_any(const Chars& t, size_t at, CharClass excluded, CharClass wanted) {
    if (!(t.classes[at] & (excluded | kNewline)) && t.is(at + 1, wanted)) {
        return t.skip(at + 1, wanted);
    }
    return t.is(at, wanted) ? t.skip(at, wanted) : 0;
}

// \s+(?!\S)|\s+ : a run of spaces leaves its last one to what follows.
size_t spaces(const Chars& t, size_t at) {
    const size_t end = t.skip(at, kSpace);
    if (end == at) return 0;
    return end == t.size() || end == at + 1 ? end : end - 1;
}

// \s*[\r\n]+|\s+(?!\S)|\s+ : a run of spaces ends behind its last line break, if it has one.
size_t lines_or_spaces(const Chars& t, size_t at) {
    size_t end = t.skip(at, kSpace);
    while (end > at && !t.is(end - 1, kNewline)) --end;
    return end > at ? end : spaces(t, at);
}

size_t gpt2(const Chars& t, size_t at) {
    if (const size_t end = contraction(t, at, false)) return end;
    if (const size_t end = run_after_space(t, at, kLetter)) return end;
    if (const size_t end = run_after_space(t, at, kNumber)) return end;
    if (const size_t end = others_after_space(t, at, kSpace | kLetter | kNumber)) return end;
    return spaces(t, at);
}

template <size_t most_digits>
size_t llama3(const Chars& t, size_t at) {
    if (const size_t end = contraction(t, at, true)) return end;
    if (const size_t end = letters_after_any(t, at, kLetter | kNumber, kLetter)) return end;
    if (const size_t end = digits(t, at, most_digits)) return end;
    if (const size_t end = others_after_space(t, at, kSpace | kLetter | kNumber)) {
        return t.skip(end, kNewline);
    }
    return lines_or_spaces(t, at);
}

size_t qwen3_5(const Chars& t, size_t at) {
    constexpr CharClass kWord = kLetter | kMark;
    if (const size_t end = contraction(t, at, true)) return end;
    if (const size_t end = letters_after_any(t, at, kLetter | kNumber, kWord)) return end;
    if (const size_t end = digits(t, at, 1)) return end;
    if (const size_t end = others_after_space(t, at, kSpace | kWord | kNumber)) {
        return t.skip(end, kNewline);
    }
    return lines_or_spaces(t, at);
}

// The two sets of o200k: both hold letters without case, and marks.
constexpr CharClass kHead = kUpper | kOther | kMark;
constexpr CharClass kTail = kLower | kOther | kMark;

// [Head]*[Tail]+ : greedy heads give back up to the last that is a tail too.
size_t heads_then_tails(const Chars& t, size_t at) {
    size_t end = t.skip(at, kHead);
    if (t.is(end, kTail)) return t.skip(end, kTail);
    while (end > at && !t.is(end - 1, kTail)) --end;
    return end > at ? end : 0;
}

size_t o200k_word(const Chars& t, size_t at) {
    const bool any_first = !(t.classes[at] & (kNewline | kLetter | kNumber));
    if (any_first && at + 1 < t.size()) {
        if (const size_t end = heads_then_tails(t, at + 1)) return end;
    }
    if (const size_t end = heads_then_tails(t, at)) return end;
    // [Head]+[Tail]* : no tail can be left here.
    if (any_first && t.is(at + 1, kHead)) return t.skip(at + 1, kHead);
    return t.is(at, kHead) ? t.skip(at, kHead) : 0;
}

size_t o200k(const Chars& t, size_t at) {
    if (const size_t end = o200k_word(t, at)) {
        const size_t more = end < t.size() ? contraction(t, end, true) : 0;
        return more ? more : end;
    }
    if (const size_t end = digits(t, at, 3)) return end;
    if (size_t end = others_after_space(t, at, kSpace | kLetter | kNumber)) {
        while (t.is(end, kNewline) || (end < t.size() && t.code[end] == '/')) ++end;
        return end;
    }
    return lines_or_spaces(t, at);
}

size_t three_digits(const Chars& t, size_t at) { return digits(t, at, 3); }

bool is_ascii_letter(char32_t c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

size_t deepseek_v3(const Chars& t, size_t at) {
    // [ASCII punctuation][A-Za-z]+
    if (t.code[at] < 0x80 && t.is(at, kPunctuation | kSymbol)) {
        size_t end = at + 1;
        while (end < t.size() && is_ascii_letter(t.code[end])) ++end;
        if (end > at + 1) return end;
    }
    constexpr CharClass kGraphic = kPunctuation | kSymbol;
    if (const size_t end = letters_after_any(t, at, kLetter | kGraphic, kLetter | kMark)) {
        return end;
    }
    if (const size_t end = run_after_space(t, at, kGraphic)) return t.skip(end, kNewline);
    return lines_or_spaces(t, at);
}

// \s+$ , where $ is the end of any line. The longest match wins, so a run of spaces is matched
// from its first one or not at all.
size_t spaces_at_line_end(const Chars& t, size_t at) {
    if (at > 0 && t.is(at - 1, kSpace)) return 0;
    size_t end = t.skip(at, kSpace);
    while (end > at && end < t.size() && t.code[end] != '\n') --end;
    return end > at ? end : 0;
}

constexpr WordPattern kPatterns[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", gpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)",
     llama3<1>},  // Qwen2 to Qwen3
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
     R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     llama3<3>},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)"
     R"( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     qwen3_5},
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)"
     R"(\s*[\r\n]+|\s+(?!\S)|\s+)",
     o200k},
    {R"(\p{N}{1,3})", three_digits},
    {R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)"
     R"([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|)"
     R"(\s+(?!\S)|\s+)",
     deepseek_v3},
    {R"(\s+$)", spaces_at_line_end},
    {R"(\s?\p{L}+)", run_after_any_space<kLetter>},
    {R"(\s?\p{P}+)", run_after_any_space<kPunctuation>},
};

}  // namespace

const WordPattern* find_word_pattern(std::string_view regex) {
    const auto* found = std::find_if(std::begin(kPatterns), std::end(kPatterns),
                                     [&](const WordPattern& p) { return p.regex == regex; });
    return found != std::end(kPatterns) ? found : nullptr;
}

const WordPattern& gpt2_word_pattern() { return kPatterns[0]; }

}  // namespace conclave::engine
