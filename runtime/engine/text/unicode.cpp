#include "runtime/engine/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "runtime/base/error.h"
#include "runtime/engine/text/unicode_tables.h"

namespace conclave::engine {
namespace {

bool is_space(char32_t c) {
    return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

CharClass category_class(char32_t c) {
    switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LT:
            return kUpper;
        case UTF8PROC_CATEGORY_LL:
            return kLower;
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO:
            return kOther;
        case UTF8PROC_CATEGORY_MN:
        case UTF8PROC_CATEGORY_MC:
        case UTF8PROC_CATEGORY_ME:
            return kMark;
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_NL:
        case UTF8PROC_CATEGORY_NO:
            return kNumber;
        case UTF8PROC_CATEGORY_PC:
        case UTF8PROC_CATEGORY_PD:
        case UTF8PROC_CATEGORY_PS:
        case UTF8PROC_CATEGORY_PE:
        case UTF8PROC_CATEGORY_PI:
        case UTF8PROC_CATEGORY_PF:
        case UTF8PROC_CATEGORY_PO:
            return kPunctuation;
        case UTF8PROC_CATEGORY_SM:
        case UTF8PROC_CATEGORY_SC:
        case UTF8PROC_CATEGORY_SK:
        case UTF8PROC_CATEGORY_SO:
            return kSymbol;
        case UTF8PROC_CATEGORY_CN:
            return class_since_15_1(c);
        default:
            return 0;
    }
}

CharClass general_class(char32_t c) {
    if (is_space(c)) return c == '\r' || c == '\n' ? kSpace | kNewline : kSpace;
    return category_class(c);
}

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

using Code = utf8proc_int32_t;

int combining_class(Code c) { return utf8proc_get_property(c)->combining_class; }

void decompose(Code c, utf8proc_option_t options, std::vector<Code>& out) {
    std::array<Code, 32> parts;  // the longest decomposition, of U+FDFA, has 18
    int boundary = 0;
    const auto n = utf8proc_decompose_char(c, parts.data(), parts.size(), options, &boundary);
    CONCLAVE_CHECK(n >= 0 && static_cast<size_t>(n) <= parts.size());
    out.insert(out.end(), parts.begin(), parts.begin() + n);
}

/// Orders the marks of each run, then composes; `run` holds no ignored character.
void flush_run(std::vector<Code>& run, bool compose, std::string& out) {
    for (size_t at = 0; at < run.size();) {
        size_t end = at;
        while (end < run.size() && combining_class(run[end]) > 0) ++end;
        std::stable_sort(run.begin() + static_cast<ptrdiff_t>(at),
                         run.begin() + static_cast<ptrdiff_t>(end),
                         [](Code a, Code b) { return combining_class(a) < combining_class(b); });
        at = end + 1;
    }
    auto size = static_cast<utf8proc_ssize_t>(run.size());
    if (compose && size > 0) {
        constexpr auto kCompose =
            static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        size = utf8proc_normalize_utf32(run.data(), size, kCompose);
        CONCLAVE_CHECK(size >= 0);
    }
    for (utf8proc_ssize_t i = 0; i < size; ++i) append_utf8(out, static_cast<char32_t>(run[i]));
    run.clear();
}

/// Below U+0300 every character is its own NFC; in the other forms only ASCII is.
bool is_normal_already(std::string_view text, NormalForm form) {
    const unsigned char limit = form == NormalForm::kNfc ? 0xCC : 0x80;
    return std::all_of(text.begin(), text.end(),
                       [&](char c) { return static_cast<unsigned char>(c) < limit; });
}

}  // namespace

CharClass char_class(char32_t c) {
    static const std::array<CharClass, 128> ascii = [] {
        std::array<CharClass, 128> table{};
        for (char32_t i = 0; i < table.size(); ++i) table[i] = general_class(i);
        return table;
    }();
    return c < ascii.size() ? ascii[c] : general_class(c);
}

bool is_word_char(char32_t c) {
    const CharClass k = char_class(c);
    if (k & (kLetter | kMark)) return true;
    if (k & kNumber) {
        return utf8proc_category(static_cast<Code>(c)) != UTF8PROC_CATEGORY_NO;
    }
    if (k & kPunctuation) {
        return utf8proc_category(static_cast<Code>(c)) == UTF8PROC_CATEGORY_PC;
    }
    // Joiners, and the enclosed letters that are symbols but Alphabetic.
    return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
           (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
           (c >= 0x1F170 && c <= 0x1F189);
}

Utf8Step utf8_step(std::string_view text) {
    const auto lead = static_cast<unsigned char>(text[0]);
    if (lead < 0x80) return {Utf8Step::kChar, 1};
    size_t size = 0;
    // The second byte's range excludes overlong forms, surrogates and what is beyond U+10FFFF.
    unsigned char low = 0x80, high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) {
        size = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        size = 3;
        if (lead == 0xE0) low = 0xA0;
        if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        size = 4;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F;
    } else {
        return {Utf8Step::kBad, 1};
    }
    for (size_t i = 1; i < size; ++i) {
        if (i == text.size()) return {Utf8Step::kCut, i};
        const auto byte = static_cast<unsigned char>(text[i]);
        if (byte < low || byte > high) return {Utf8Step::kBad, i};
        low = 0x80, high = 0xBF;
    }
    return {Utf8Step::kChar, size};
}

std::string valid_utf8(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const Utf8Step step = utf8_step(text);
        if (step.kind == Utf8Step::kChar) {
            out += text.substr(0, step.size);
        } else {
            for (size_t i = 0; i < step.size; ++i) out += kReplacement;
        }
        text.remove_prefix(step.size);
    }
    return out;
}

void append_utf8(std::string& out, char32_t c) {
    const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((c >> shift) & 0x3F)); };
    if (c < 0x80) {
        out += static_cast<char>(c);
    } else if (c < 0x800) {
        out += static_cast<char>(0xC0 | (c >> 6));
        tail(0);
    } else if (c < 0x10000) {
        out += static_cast<char>(0xE0 | (c >> 12));
        tail(6), tail(0);
    } else {
        out += static_cast<char>(0xF0 | (c >> 18));
        tail(12), tail(6), tail(0);
    }
}

char32_t next_char(std::string_view text, size_t& at) {
    const auto lead = static_cast<unsigned char>(text[at++]);
    if (lead < 0x80) return lead;
    const int more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    char32_t c = lead & (0x3F >> more);
    for (int i = 0; i < more; ++i) c = (c << 6) | (static_cast<unsigned char>(text[at++]) & 0x3F);
    return c;
}

char32_t previous_char(std::string_view text, size_t& at) {
    do --at;
    while (at > 0 && is_continuation(text[at]));
    size_t begin = at;
    return next_char(text, begin);
}

void Chars::assign(std::string_view text) {
    code.clear(), classes.clear(), offset.clear();
    for (size_t at = 0; at < text.size();) {
        offset.push_back(at);
        code.push_back(next_char(text, at));
        classes.push_back(char_class(code.back()));
    }
    offset.push_back(text.size());
}

std::string normal_form(std::string_view text, NormalForm form) {
    if (is_normal_already(text, form)) return std::string(text);
    const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
    const bool compat = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
    const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                        (compat ? UTF8PROC_COMPAT : 0));
    std::string out;
    out.reserve(text.size());
    std::vector<Code> run;
    for (size_t at = 0; at < text.size();) {
        const char32_t c = next_char(text, at);
        if (normalization_ignores(c)) {
            flush_run(run, compose, out);
            append_utf8(out, c);
        } else {
            decompose(static_cast<Code>(c), options, run);
        }
    }
    flush_run(run, compose, out);
    return out;
}

std::string lowercase(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
        const char32_t c = next_char(text, at);
        append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<Code>(c))));
        if (c == 0x130) append_utf8(out, 0x307);  // the one letter whose lower case is two
    }
    return out;
}

}  // namespace conclave::engine
