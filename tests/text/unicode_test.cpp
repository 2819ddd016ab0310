#include "runtime/engine/text/unicode.h"

#include "tests/text/fixtures.h"

namespace conclave::engine {
namespace {

TEST(Unicode, Classes) {
    const std::vector<std::pair<char32_t, CharClass>> expected{
        {'A', kUpper},
        {'z', kLower},
        {0x1C5, kUpper},  // Dz, title case
        {0x2B0, kOther},
        {0x4E2D, kOther},
        {0x301, kMark},
        {'7', kNumber},
        {0x2167, kNumber},
        {0xBD, kNumber},
        {'!', kPunctuation},
        {'_', kPunctuation},
        {'+', kSymbol},
        {0x1F600, kSymbol},
        {' ', kSpace},
        {'\n', kSpace | kNewline},
        {'\r', kSpace | kNewline},
        {0x85, kSpace},
        {0x3000, kSpace},
        {0x200B, 0},
        {0x1C, 0},
        {0xE000, 0},
        {0x378, 0},
        // Unicode 15.1 and 16.0
        {0x2FFC, kSymbol},
        {0x2EBF0, kOther},
        {0x1C89, kUpper},
        {0x1C8A, kLower},
        {0x10D40, kNumber},
        {0x10D4F, kOther},
        {0x897, kMark},
        {0x1B4E, kPunctuation},
        {0x1CEB3, kSymbol},
        // Unicode 17.0 is not there yet
        {0x88F, 0},
        {0x20C1, 0},
    };
    for (const auto& [c, classes] : expected) EXPECT_EQ(char_class(c), classes) << uint32_t{c};
}

TEST(Unicode, WordCharacters) {
    using namespace std::literals;
    for (const char32_t c : U"a_5\x301\x200D\x24B6\x2167\x203F"sv) {
        EXPECT_TRUE(is_word_char(c)) << uint32_t{c};
    }
    for (const char32_t c : U" -+\xBD\x1F600\x378"sv) {
        EXPECT_FALSE(is_word_char(c)) << uint32_t{c};
    }
}

TEST(Unicode, BadBytesOneByOne) {
    const std::string r(kReplacement);
    EXPECT_EQ(valid_utf8("a\xC3\xA9\xF0\x9F\x98\x80"), "a\xC3\xA9\xF0\x9F\x98\x80");
    EXPECT_EQ(valid_utf8("\xFF"
                         "a"),
              r + "a");
    EXPECT_EQ(valid_utf8("\xC0\x80"), r + r);                  // overlong
    EXPECT_EQ(valid_utf8("\xED\xA0\x80"), r + r + r);          // a surrogate
    EXPECT_EQ(valid_utf8("\xF4\x90\x80\x80"), r + r + r + r);  // beyond U+10FFFF
    EXPECT_EQ(valid_utf8("\xE4\xB8"
                         "a\xE4\xB8"),
              r + r + "a" + r + r);
}

TEST(Unicode, EveryCharacterThereAndBack) {
    for (char32_t c = 0; c < 0x110000; c += c < 0x3000 ? 1 : 251) {
        if (c >= 0xD800 && c < 0xE000) continue;
        std::string text;
        append_utf8(text, c);
        ASSERT_EQ(valid_utf8(text), text) << uint32_t{c};
        size_t at = 0, end = text.size();
        ASSERT_EQ(next_char(text, at), c);
        ASSERT_EQ(at, text.size());
        ASSERT_EQ(previous_char(text, end), c);
        ASSERT_EQ(end, 0u);
    }
}

TEST(Unicode, NormalForms) {
    const auto nfc = [](std::string_view text) { return normal_form(text, NormalForm::kNfc); };
    EXPECT_EQ(nfc("e\xCC\x81"), "\xC3\xA9");
    EXPECT_EQ(nfc("\xE2\x84\xAB"), "\xC3\x85");                              // Angstrom sign
    EXPECT_EQ(nfc("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB"), "\xED\x95\x9C");  // Hangul
    EXPECT_EQ(nfc("q\xCC\x87\xCC\xA3"), "q\xCC\xA3\xCC\x87");                // reordered
    EXPECT_EQ(nfc("\xEF\xAC\x81"), "\xEF\xAC\x81");                          // a ligature
    EXPECT_EQ(normal_form("\xEF\xAC\x81", NormalForm::kNfkc), "fi");
    EXPECT_EQ(normal_form("\xC3\xA9", NormalForm::kNfd), "e\xCC\x81");
    EXPECT_EQ(normal_form("\xC2\xBD", NormalForm::kNfkd),
              "1\xE2\x81\x84"
              "2");
}

TEST(Unicode, NormalFormsAreThoseOfUnicode9) {
    const auto nfc = [](std::string_view text) { return normal_form(text, NormalForm::kNfc); };
    // U+0898 (14.0) has a combining class since, and would go behind U+0323.
    const std::string late = "a\xE0\xA2\x98\xCC\xA3";
    EXPECT_EQ(nfc(late), late);
    // U+11935 U+11930 compose to U+11938 since 13.0.
    const std::string dives = "\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0";
    EXPECT_EQ(nfc(dives), dives);
    // U+1FBF1 (13.0) is a compatibility 1 since.
    EXPECT_EQ(normal_form("\xF0\x9F\xAF\xB1", NormalForm::kNfkc), "\xF0\x9F\xAF\xB1");
}

TEST(Unicode, Lowercase) {
    EXPECT_EQ(lowercase("AbC \xC3\x89\xCE\xA3 \xC4\xB0"), "abc \xC3\xA9\xCF\x83 i\xCC\x87");
}

}  // namespace
}  // namespace conclave::engine
