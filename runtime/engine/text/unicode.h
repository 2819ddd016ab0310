// UTF-8 and the character properties tokenizers are defined by: classes as Unicode 16.0 has them,
// normal forms as Unicode 9.0 does (README.md says why the two differ).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace conclave::engine {

/// What one text may come to: prompts are far shorter, and memory stays bounded.
inline constexpr size_t kMaxTextBytes = size_t{1} << 26;

/// A set of the bits below.
using CharClass = uint16_t;
inline constexpr CharClass kUpper = 1;  ///< Lu, Lt
inline constexpr CharClass kLower = 2;  ///< Ll
inline constexpr CharClass kOther = 4;  ///< Lm, Lo
inline constexpr CharClass kLetter = kUpper | kLower | kOther;
inline constexpr CharClass kMark = 8;
inline constexpr CharClass kNumber = 16;
inline constexpr CharClass kPunctuation = 32;
inline constexpr CharClass kSymbol = 64;
inline constexpr CharClass kSpace = 128;    ///< White_Space
inline constexpr CharClass kNewline = 256;  ///< \r and \n only; they are kSpace too

CharClass char_class(char32_t c);
/// \w: Alphabetic, marks, decimal digits, connectors, joiners.
bool is_word_char(char32_t c);

struct Utf8Step {
    enum Kind {
        kChar,  ///< `size` bytes are one character
        kBad,   ///< `size` bytes can never become one (1 to 3: what a decoder replaces at once)
        kCut    ///< the text ends inside what could still become one
    } kind;
    size_t size;
};
/// What `text`, which is not empty, begins with.
Utf8Step utf8_step(std::string_view text);

/// Each byte that is not part of a valid character becomes U+FFFD.
std::string valid_utf8(std::string_view text);
void append_utf8(std::string& out, char32_t c);
/// The character at `at` of valid UTF-8; moves `at` behind it.
char32_t next_char(std::string_view text, size_t& at);
/// The one just before `at`, which is not 0; moves `at` to its begin.
char32_t previous_char(std::string_view text, size_t& at);

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  ///< U+FFFD

/// A valid text as rows of characters, their classes, and where each begins.
struct Chars {
    std::vector<char32_t> code;
    std::vector<CharClass> classes;
    std::vector<size_t> offset;  ///< in bytes; one more than characters

    void assign(std::string_view text);
    size_t size() const { return code.size(); }
    bool is(size_t at, CharClass wanted) const { return at < size() && (classes[at] & wanted); }
    /// The first character from `at` on that has none of the wanted classes.
    size_t skip(size_t at, CharClass wanted) const {
        while (is(at, wanted)) ++at;
        return at;
    }
};

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
/// O(n log n) on any valid text, however many marks follow one another.
std::string normal_form(std::string_view text, NormalForm form);
/// Character by character: no final sigma.
std::string lowercase(std::string_view text);

}  // namespace conclave::engine
