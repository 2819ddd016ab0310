#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/json.h"
#include "runtime/base/text.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace conclave {
namespace {

JsonLimits limits() {
    JsonLimits l;
    l.file = "some/config.json";
    return l;
}

template <class F>
std::string error_of(F f) {
    try {
        f();
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kBadContent) << e.what();
        EXPECT_NE(std::string(e.what()).find("some/config.json"), std::string::npos) << e.what();
        return e.what();
    }
    ADD_FAILURE() << "nothing thrown";
    return "";
}

void expect_contains(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks: " << part;
}

std::string repeat(const std::string& part, size_t times) {
    std::string text;
    text.reserve(part.size() * times);
    for (size_t i = 0; i < times; ++i) text += part;
    return text;
}

TEST(Json, BuildsWhatTheLibraryWould) {
    const std::vector<std::string> texts = {
        "null",
        "true",
        " [] ",
        "{}",
        "-7",
        "18446744073709551615",
        "1.5e3",
        "\"\\u00e9\\n\"",
        R"({"a":[1,-2,3.5,{"b":[[],{}],"c":null}],"":{"":""},"z":false})",
        R"([{"a":1},{"a":2},[{"a":3}]])",
    };
    for (const std::string& text : texts)
        EXPECT_EQ(parse_json(text, limits()), Json::parse(text)) << text;
}

TEST(Json, RefusesMalformedText) {
    const std::vector<std::string> texts = {
        "",
        " ",
        "{",
        "[1,",
        "[1,]",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "[1] [2]",
        "nul",
        "NaN",
        "Infinity",
        "-Infinity",
        "[01]",
        "[+1]",
        "[1.]",
        "[.5]",
        "[1e]",
        "[0x10]",
        "[1e400]",
        "[-1e400]",
        "// c\n1",
        "/* c */ 1",
        "\"\t\"",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"",
        "\"\xf5\x80\x80\x80\"",
        "\"\xe2\x82\"",
        "\"open",
        std::string("1\0", 2),
        std::string("{}\0{", 4),
        std::string("\"a\0b\"", 5),
        "]",
        "}",
        ",",
    };
    for (const std::string& text : texts) {
        SCOPED_TRACE(text);
        expect_contains(error_of([&] { parse_json(text, limits()); }), "at byte ");
    }
}

TEST(Json, NamesThePosition) {
    expect_contains(error_of([] { parse_json(R"({"a":1,"a":2})", limits()); }),
                    "duplicate JSON key \"a\" at byte 10");
    expect_contains(error_of([] { parse_json("[1,2,x]", limits()); }), "at byte 6");
    expect_contains(error_of([] { parse_json(std::string("[1]\0", 4), limits()); }), "at byte 3");
}

TEST(Json, RefusesDuplicatesAtAnyDepth) {
    error_of([] { parse_json(R"([{"b":{"x":1,"y":2,"x":3}}])", limits()); });
    error_of([] { parse_json(R"({"a":1,"\u0061":2})", limits()); });
    error_of([] { parse_json(R"({"":1,"":1})", limits()); });
    EXPECT_NO_THROW(parse_json(R"({"a":{"a":{"a":[{"a":1},{"a":1}]}}})", limits()));
}

TEST(Json, BoundsDepth) {
    JsonLimits l = limits();
    l.max_depth = 5;
    EXPECT_NO_THROW(parse_json("[[[[[1]]]]]", l));
    EXPECT_NO_THROW(parse_json("[[[[[1]]]],[[[[2]]]]]", l));
    expect_contains(error_of([&] { parse_json("[[[[[[1]]]]]]", l); }), "deeper than 5 at byte 6");
    error_of([&] { parse_json(R"({"a":[{"a":[{"a":[1]}]}]})", l); });
    error_of([] { parse_json(repeat("[", 10'000'000), limits()); });
    error_of([] { parse_json(repeat("{\"a\":", 5'000'000), limits()); });
}

TEST(Json, BoundsSizeAndTokens) {
    JsonLimits l = limits();
    l.max_bytes = 10;
    EXPECT_NO_THROW(parse_json("[1,2,3,40]", l));
    expect_contains(error_of([&] { parse_json("[1,2,3,400]", l); }),
                    "expected at most 10 bytes, found 11 bytes");
    l = limits();
    l.max_token_bytes = 100;
    EXPECT_NO_THROW(parse_json("[\"" + repeat("x", 90) + "\",\"" + repeat("x", 90) + "\"]", l));
    expect_contains(error_of([&] { parse_json(in_quotes(repeat("x", 200), 200), l); }), "too long");
    error_of([&] { parse_json(repeat("1", 200), l); });
    error_of([&] { parse_json(repeat(" ", 200) + "1", l); });
}

TEST(Json, MessagesAreShortAndPrintable) {
    const std::string hostile = repeat("\x1b[31m\x7f", 100'000);
    std::string escaped;
    for (const char c : hostile)
        escaped += c == '\x1b' ? std::string("\\u001b") : std::string(1, c);
    const Json object = parse_json("{\"a\":\"" + escaped + "\"}", limits());
    const std::vector<std::string> messages = {
        error_of([&] { get_int(object, "a", 0, 9, "some/config.json"); }),
        error_of([&] { parse_json("{\"" + escaped + "\":1,\"" + escaped + "\":2}", limits()); }),
        error_of([&] { parse_json("[" + hostile + "]", limits()); }),
    };
    for (const std::string& m : messages) {
        EXPECT_LT(m.size(), 1500u);
        for (const char c : m) ASSERT_TRUE(c >= 0x20 && c < 0x7f) << m;
    }
}

class JsonMembers : public ::testing::Test {
  protected:
    const std::string file_ = "some/config.json";
    const Json object_ = parse_json(
        R"({"n":7,"neg":-1,"zero":-0,"frac":1.5,"one":1.0,"huge":1e30,"max":9223372036854775807,
            "over":9223372036854775808,"u64":18446744073709551615,"2^64":18446744073709551616,
            "yes":true,"none":null,"text":"abc","digits":"7","list":[1,2],"map":{"k":1}})",
        limits());
};

TEST_F(JsonMembers, Integers) {
    constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
    EXPECT_EQ(get_int(object_, "n", 7, 7, file_), 7);
    EXPECT_EQ(get_int(object_, "neg", -1, 0, file_), -1);
    EXPECT_EQ(get_int(object_, "zero", 0, 0, file_), 0);
    EXPECT_EQ(get_int(object_, "max", 0, kMax, file_), kMax);
    EXPECT_EQ(get_int_or(object_, "n", 3, 0, 9, file_), 7);
    EXPECT_EQ(get_int_or(object_, "none", 3, 5, 9, file_), 3);
    EXPECT_EQ(get_int_or(object_, "absent", 3, 5, 9, file_), 3);
    for (const char* key : {"neg", "frac", "one", "huge", "over", "u64", "2^64", "yes", "none",
                            "text", "digits", "list", "map", "absent"}) {
        const std::string m = error_of([&] { get_int(object_, key, 0, kMax, file_); });
        expect_contains(m, std::string("\"") + key + "\"");
        expect_contains(m, "expected an integer from 0 to 9223372036854775807, found ");
    }
    for (const char* key : {"neg", "frac", "one", "huge", "over", "yes", "text", "list", "map"})
        error_of([&] { get_int_or(object_, key, 0, 0, kMax, file_); });
    expect_contains(error_of([&] { get_int(object_, "n", 8, 9, file_); }), "found 7");
    expect_contains(error_of([&] { get_int(object_, "n", 0, 6, file_); }), "found 7");
    expect_contains(error_of([&] { get_int(object_, "u64", -5, 5, file_); }),
                    "found 18446744073709551615");
}

TEST_F(JsonMembers, OtherTypes) {
    EXPECT_EQ(get_double(object_, "frac", 0, 2, file_), 1.5);
    EXPECT_EQ(get_double(object_, "n", 0, 10, file_), 7.0);
    EXPECT_EQ(get_double_or(object_, "none", 0.25, 0, 10, file_), 0.25);
    EXPECT_TRUE(get_bool(object_, "yes", file_));
    EXPECT_TRUE(get_bool_or(object_, "none", true, file_));
    EXPECT_EQ(get_string(object_, "text", file_), "abc");
    EXPECT_EQ(get_string_or(object_, "absent", "d", file_), "d");
    EXPECT_EQ(get_object(object_, "map", file_).size(), 1u);
    EXPECT_EQ(get_array(object_, "list", file_).size(), 2u);
    EXPECT_EQ(find_json(object_, "none", file_), nullptr);
    EXPECT_EQ(find_json(object_, "absent", file_), nullptr);

    expect_contains(error_of([&] { get_double(object_, "huge", 0, 1e6, file_); }),
                    "expected a number from 0.0 to 1000000.0, found 1e+30");
    error_of([&] { get_double(object_, "yes", 0, 1, file_); });
    error_of([&] { get_double(object_, "digits", 0, 10, file_); });
    error_of([&] { get_double_or(object_, "neg", 1, 0, 1, file_); });
    error_of([&] { get_bool(object_, "n", file_); });
    error_of([&] { get_bool(object_, "none", file_); });
    error_of([&] { get_bool_or(object_, "text", true, file_); });
    error_of([&] { get_string(object_, "n", file_); });
    error_of([&] { get_string_or(object_, "map", "d", file_); });
    error_of([&] { get_object(object_, "list", file_); });
    error_of([&] { get_array(object_, "map", file_); });
    error_of([&] { get_array(object_, "absent", file_); });
    expect_contains(error_of([&] {
                        find_json(Json::array({1, 2}), "k", file_);
                    }),
                    "expected an object, found an array of 2");
    expect_contains(error_of([&] { get_int(Json("x"), "k", 0, 1, file_); }), "found \"x\"");
}

TEST(Json, WholeFiles) {
    const testing::TempDir dir;
    testing::write_file(dir / "ok.json", "{\"a\": 1}\n");
    testing::write_file(dir / "bad.json", "{\"a\": 1");
    EXPECT_EQ(parse_json_file(dir / "ok.json"), Json({{"a", 1}}));
    try {
        parse_json_file(dir / "bad.json");
        FAIL();
    } catch (const Error& e) {
        expect_contains(e.what(), dir / "bad.json");
    }
    JsonLimits small;
    small.max_bytes = 4;
    EXPECT_THROW(parse_json_file(dir / "ok.json", small), Error);
}

}  // namespace
}  // namespace conclave
