// What people read: sizes, durations, progress, and names from hostile files.
#include <gtest/gtest.h>

#include "launch/format.h"
#include "launch/progress.h"

namespace conclave::launch {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(Format, Bytes) {
    EXPECT_EQ(human_bytes(0), "0 B");
    EXPECT_EQ(human_bytes(1023), "1023 B");
    EXPECT_EQ(human_bytes(1536), "1.5 KiB");
    EXPECT_EQ(human_bytes(1024 * 1024 - 1), "1.0 MiB");
    EXPECT_EQ(human_bytes(42.1 * kGiB), "42.1 GiB");
    EXPECT_EQ(human_bytes(1.349 * kGiB, 2), "1.35 GiB");
}

TEST(Format, PartsOfAWhole) {
    EXPECT_EQ(human_bytes_of(0.5 * kGiB, 42.1 * kGiB), "0.5 of 42.1 GiB");
    EXPECT_EQ(human_bytes_of(7, 9), "7 of 9 B");
}

TEST(Format, CountsAndDurations) {
    EXPECT_EQ(human_count(999), "999");
    EXPECT_EQ(human_count(7614976), "7.6 M");
    EXPECT_EQ(human_count(999999), "1.0 M");
    EXPECT_EQ(human_duration(17.2), "18 s");
    EXPECT_EQ(human_duration(200), "3 min 20 s");
    EXPECT_EQ(human_duration(3599.5), "1 h 0 min");
}

TEST(Format, ForeignTextCannotDriveTheTerminal) {
    EXPECT_EQ(terminal_safe("a\033[31mb\x7f\x01"), "a?[31mb??");
    EXPECT_EQ(terminal_safe("two\nlines\t\r"), "two lines  ");
    EXPECT_EQ(terminal_safe("\xc2\x9b"
                            "2J \xc3\xa9 \xc2\xa0"),
              "?2J \xc3\xa9 \xc2\xa0");
    EXPECT_EQ(terminal_safe("\xc2"), "\xc2");
}

TEST(Progress, BarSaysHowFarHowFastAndHowLong) {
    const LoadProgress p{.bytes = 21 * kGiB, .total = 42 * kGiB, .seconds = 14};
    EXPECT_EQ(progress_bar(p),
              "loading [#####-----]  50 %  21.0 of 42.0 GiB  1.50 GiB/s  14 s left");
}

TEST(Progress, BarIsBoundedWhateverTheFigures) {
    for (const uint64_t bytes : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}})
        for (const uint64_t total : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}})
            for (const double seconds : {0.0, 1e-9, 1e9}) {
                const std::string bar = progress_bar({bytes, total, seconds, false});
                EXPECT_LE(bar.size(), 79u) << bar;
            }
}

TEST(Progress, ElsewhereALineForEachTenPercent) {
    ProgressSteps steps;
    std::vector<std::string> lines;
    for (uint64_t bytes = 0; bytes <= 1000; bytes += 7)
        if (const auto line = steps.line({bytes, 1000, 1, false})) lines.push_back(*line);
    ASSERT_EQ(lines.size(), 9u);
    if (const auto line = steps.line({1000, 1000, 1, true})) lines.push_back(*line);
    ASSERT_EQ(lines.size(), 10u);
    for (size_t i = 0; i < lines.size(); ++i)
        EXPECT_NE(lines[i].find(" " + std::to_string(10 * (i + 1)) + " %"), std::string::npos);
    EXPECT_FALSE(steps.line({1000, 1000, 1, true}));
}

TEST(Progress, AJumpIsOneLine) {
    ProgressSteps steps;
    const auto line = steps.line({95, 100, 1, false});
    ASSERT_TRUE(line);
    EXPECT_NE(line->find(" 90 %"), std::string::npos);
    EXPECT_FALSE(steps.line({99, 100, 1, false}));
}

TEST(Progress, OfTokens) {
    EXPECT_EQ(progress_bar(progress_of_tokens("scoring", 1280, 3072, 2.5)),
              "scoring [####------]  41 %  1280 of 3072 tokens  512.0 tokens/s  4 s left");
    EXPECT_EQ(progress_bar(progress_of_tokens("scoring", 9, 9, 1)),
              "scoring [##########] 100 %  9 of 9 tokens  9.0 tokens/s");
    for (const int64_t tokens : {0, 7})
        for (const double seconds : {0.0, 1e-300, 1e300})
            EXPECT_LE(progress_bar(progress_of_tokens("scoring", tokens, 7, seconds)).size(), 79u);
    EXPECT_EQ(progress_of_tokens("scoring", 0, 0, 0).percent, 0);
}

TEST(Progress, EachKindOfWorkStartsAnew) {
    ProgressSteps steps;
    EXPECT_TRUE(steps.line(LoadProgress{100, 100, 1, true}));
    EXPECT_FALSE(steps.line(progress_of_tokens("scoring", 1, 100, 1)));
    EXPECT_TRUE(steps.line(progress_of_tokens("scoring", 10, 100, 1)));
    EXPECT_FALSE(steps.line(progress_of_tokens("scoring", 19, 100, 1)));
}

TEST(Progress, LastLine) {
    EXPECT_EQ(loaded_line({static_cast<uint64_t>(42.1 * kGiB), 31.2, 8, 1, ""}),
              "loaded 42.1 GiB in 31.2 s (1.35 GiB/s, 8 ranks)");
    EXPECT_EQ(loaded_line({1024, 0, 1, 1, ""}), "loaded 1.0 KiB in 0.0 s (1 rank)");
}

}  // namespace
}  // namespace conclave::launch
