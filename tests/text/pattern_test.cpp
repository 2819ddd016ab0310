#include "runtime/engine/text/pattern.h"

#include "tests/text/fixtures.h"

namespace conclave::engine {
namespace {

// splits.json was written by a regular expression engine with backtracking: for each expression,
// texts as lists of [part, whether it is a match].
TEST(Pattern, SplitsAsAnExpressionEngineDoes) {
    const Json cases = parse_fixture(CONCLAVE_SOURCE_DIR "/tests/fixtures/tokenizers/splits.json");
    ASSERT_EQ(cases.size(), 15u);
    Chars chars;
    std::vector<Span> spans{{1, 2, true}};
    for (const Json& c : cases) {
        const auto regex = c.at("regex").get<std::string>();
        SCOPED_TRACE(regex);
        const auto pattern = make_pattern(regex);
        ASSERT_TRUE(pattern);
        ASSERT_GT(c.at("texts").size(), 100u);
        for (const Json& expected : c.at("texts")) {
            std::string text;
            for (const Json& part : expected) text += part.at(0).get<std::string>();
            find_spans(*pattern, text, chars, spans);
            Json found = Json::array();
            for (const Span& s : spans) {
                found.push_back({text.substr(s.begin, s.end - s.begin), s.match});
            }
            EXPECT_EQ(found, expected);
        }
    }
}

TEST(Pattern, OnlyWhatIsKnown) {
    for (const char* regex :
         {"",      "a",     "[a",     "a]",     "[]",   "[]+",          "[^a]+",     "[a-]",
          "[-a]",  "[z-a]", "[a][b]", "[a]++",  "[a]*", "[[:alpha:]]+", "[a&&b]",    "[\\p{L}]+",
          "[\\d]", "[a\\]", "\\s?",   "\\s?[a", "(a)",  "\\s+",         " ?\\p{L}+", "[a]|[b]"}) {
        EXPECT_FALSE(make_pattern(regex)) << regex;
    }
    for (const char* regex : {"[a]", "[a-z]+", "\\s?[a\\-z]+", "[\\r\\n\\t\\]]", "[a&]"}) {
        EXPECT_TRUE(make_pattern(regex)) << regex;
    }
}

TEST(Pattern, ReplacesMatches) {
    const auto vowels = make_pattern("[aeiou]+");
    EXPECT_EQ(replace_matches(*vowels, "aeb\xC3\xA9ou!", "-"), "-b\xC3\xA9-!");
    EXPECT_EQ(replace_matches(*vowels, "", "-"), "");
    const std::string long_text(1 << 16, 'a');
    EXPECT_THROW(replace_matches(*make_pattern("[a]"), long_text, std::string(1 << 11, 'b')),
                 Error);
}

}  // namespace
}  // namespace conclave::engine
