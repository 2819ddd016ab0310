// Stop strings: found wherever the text is cut, never passed on, and never more than that is lost.
#include "runtime/engine/text/stop_strings.h"

#include <algorithm>
#include <optional>
#include <random>

#include "runtime/base/error.h"
#include "runtime/engine/text/unicode.h"
#include "tests/text/fixtures.h"

namespace conclave::engine {
namespace {

using Texts = std::vector<std::string>;

struct Outcome {
    std::string text;
    bool matched;
    bool operator==(const Outcome&) const = default;
};

/// The plain definition: the shortest prefix of `text` that ends with a stop string, without it.
Outcome expected(const std::string& text, const Texts& stops) {
    for (size_t end = 1; end <= text.size(); ++end) {
        size_t longest = 0;
        for (const std::string& s : stops)
            if (s.size() <= end && text.compare(end - s.size(), s.size(), s) == 0)
                longest = std::max(longest, s.size());
        if (longest > 0) return {text.substr(0, end - longest), true};
    }
    return {text, false};
}

/// In pieces of whole characters, each of which must be passed on as soon as it can be.
Outcome streamed(const std::string& text, const Texts& stops, std::mt19937& random) {
    StopStrings stop(stops);
    Outcome out{{}, false};
    size_t at = 0;
    while (at < text.size()) {
        const size_t begin = at;
        for (size_t n = 1 + random() % 3; n > 0 && at < text.size(); --n) next_char(text, at);
        const std::string piece = stop.add(text.substr(begin, at - begin));
        EXPECT_EQ(valid_utf8(piece), piece);
        out.text += piece;
        if (stop.matched()) continue;
        const std::string held = text.substr(out.text.size(), at - out.text.size());
        EXPECT_EQ(text.compare(0, out.text.size(), out.text), 0);
        EXPECT_TRUE(held.empty() || std::any_of(stops.begin(), stops.end(),
                                                [&](const std::string& s) {
                                                    return s.size() > held.size() &&
                                                           s.compare(0, held.size(), held) == 0;
                                                }))
            << held << " is held back for nothing";
    }
    out.text += stop.finish();
    out.matched = stop.matched();
    return out;
}

Outcome at_once(const std::string& text, const Texts& stops) {
    StopStrings stop(stops);
    std::string out = stop.add(text);
    out += stop.finish();
    return {out, stop.matched()};
}

TEST(StopStrings, EqualThePlainDefinitionHoweverTheTextIsCut) {
    std::mt19937 random(5);
    const Texts letters{"a", "b", "\xC3\xA9", "\xC3\xA8", "\xE2\x82\xAC"};  // few: many near misses
    const auto text_of = [&](size_t most, size_t kinds) {
        std::string text;
        for (size_t n = random() % most; n > 0; --n) text += letters[random() % kinds];
        return text;
    };
    int matches = 0;
    for (int round = 0; round < 4000; ++round) {
        const size_t kinds = 2 + random() % 4;
        Texts stops;
        for (size_t n = random() % 4; n > 0; --n) {
            std::string s = text_of(8, kinds);
            if (!s.empty()) stops.push_back(std::move(s));
        }
        const std::string text = text_of(40, kinds);
        const Outcome wanted = expected(text, stops);
        matches += wanted.matched;
        ASSERT_EQ(streamed(text, stops, random), wanted) << text;
        ASSERT_EQ(at_once(text, stops), wanted) << text;
    }
    EXPECT_GT(matches, 1000);
    EXPECT_LT(matches, 3500);
}

TEST(StopStrings, OverlappingOnes) {
    EXPECT_EQ(at_once("xabcd", {"ab", "abc"}), (Outcome{"x", true}));
    EXPECT_EQ(at_once("xabcd", {"abc", "bc"}), (Outcome{"x", true})) << "of those that end here";
    EXPECT_EQ(at_once("xabcd", {"abcd", "bc"}), (Outcome{"xa", true})) << "the first complete";
    EXPECT_EQ(at_once("aab", {"aaa", "ab"}), (Outcome{"a", true}));
    EXPECT_EQ(at_once("ababac", {"abac"}), (Outcome{"ab", true}));
}

TEST(StopStrings, WhatWasHeldBackIsFlushed) {
    StopStrings stop({"###"});
    EXPECT_EQ(stop.add("a#"), "a");
    EXPECT_EQ(stop.add("#"), "");
    EXPECT_EQ(stop.add("b##"), "##b");
    EXPECT_EQ(stop.finish(), "##");
    EXPECT_FALSE(stop.matched());
}

TEST(StopStrings, NothingFollowsAMatch) {
    StopStrings stop({"\n\n"});
    EXPECT_EQ(stop.add("one\n"), "one");
    EXPECT_EQ(stop.add("\ntwo"), "");
    EXPECT_TRUE(stop.matched());
    EXPECT_EQ(stop.add("three"), "");
    EXPECT_EQ(stop.finish(), "");
}

TEST(StopStrings, RefusesWhatCannotStop) {
    for (const Texts& bad : {Texts{""}, Texts{"a", ""}, Texts(17, "a"), Texts{"a\xFF"},
                             Texts{"\xC3"}, Texts{std::string(4097, 'a')}}) {
        try {
            StopStrings stop(bad);
            ADD_FAILURE() << ::testing::PrintToString(bad);
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kUsage);
        }
    }
    StopStrings(Texts(16, std::string(4096, 'a')));
}

TEST(StopStrings, LongRepetitionsAreLinear) {
    StopStrings stop({std::string(4000, 'a') + 'b'});
    const std::string text(2'000'000, 'a');
    EXPECT_EQ(stop.add(text).size(), text.size() - 4000);
    EXPECT_EQ(stop.add("b"), "");
    EXPECT_TRUE(stop.matched());
}

}  // namespace
}  // namespace conclave::engine
