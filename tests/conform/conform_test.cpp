// Broken plugins break the law that they break; sound ones and all that is built in break none.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "runtime/api/conclave_conform.hpp"
#include "tests/support/temp_dir.h"

namespace conclave {
namespace {

using State = ConformResult::State;

std::string summary(const ConformReport& report) {
    std::string s;
    for (const ConformResult& r : report.results)
        if (r.state != State::kHeld)
            s += r.law + " | " + r.subject +
                 (r.state == State::kBroken ? " | BROKEN " : " | not ") + r.what + "\n";
    return s;
}

struct Bug {
    const char *name, *law;
    const char* says = "";  ///< part of what is said of it
};
std::ostream& operator<<(std::ostream& out, const Bug& bug) { return out << bug.name; }

const Bug kBugs[] = {
    {"needs-too-little", "codec.needs"},
    {"scratch", "codec.needs", "scratch_bytes() is too little"},
    {"crash", "codec.needs", "signal 11"},
    {"phase", "codec.round_trip", "expected by the sample"},
    {"sample", "codec.round_trip", "expected by the sample"},
    {"group-boundary", "codec.interval", "scale"},
    {"rows", "codec.rows", "alone"},
    {"indexer-outside", "indexer.inside", "inside the tensor"},
    {"indexer-unordered", "indexer.order", "ascending"},
    {"indexer-overlap", "indexer.order", "overlap"},
    {"indexer-missing", "indexer.rows", "bytes in all ranges"},
    {"indexer-impure", "indexer.pure"},
    {"indexer-extra", "indexer.coverage"},
    {"config-type", "format.config", "no conclave::Error"},
    {"config-loop", "format.config", "did not end"},
    {"claims", "format.config", "claims()"},
    {"describe-beyond", "format.describe", "larger than its tensor"},
    {"describe-values", "format.describe", "activation rule"},
    {"kernel-tail", "kernel.matches", "expected"},
    {"kernel-outside", "kernel.bounds", "between rows"},
    {"kernel-scratch", "kernel.bounds", "must not be touched"},
    {"kernel-unwritten", "kernel.bounds", "unwritten"},
    {"kernel-pack-beyond", "kernel.bounds", "pack()"},
    {"kernel-range", "kernel.ranges"},
    {"kernel-order", "kernel.consistent", "consistent"},
    {"kernel-pack", "kernel.pack", "slices"},
    {"kernel-refusal", "kernel.refusal", "refuses"},
    {"kernel-ud2", "kernel.isa", "signal 4"},
    {"kernel-loop", "kernel.bounds", "did not end"},
    {"reader-outside", "reader.states", "bytes"},
    {"reader-end", "reader.end", "no error"},
    {"reader-parts", "reader.reads", "in parts"},
    {"register", "plugin.load", "signal 6"},
};

ConformOptions toy_options() {
    ConformOptions options;
    options.plugin = TOY_PLUGIN;
    options.cases = 40;
    return options;
}

/// A folder that toy's reader reads.
void make_folder(const testing::TempDir& folder) {
    std::string bytes(64, '\0');
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + 1);
    std::ofstream(folder / "toy.bin", std::ios::binary) << bytes;
}

ConformReport conform_toy(const char* bug) {
    ConformOptions options = toy_options();
    const testing::TempDir folder;
    make_folder(folder);
    if (std::string(bug).starts_with("reader") || !*bug) {
        ConformOptions readers = options;
        readers.law = "reader";
        readers.checkpoint = folder.path();
        setenv("TOY_BUG", bug, 1);
        ConformReport report = conform(readers);
        if (*bug) return report;
        EXPECT_TRUE(report.sound()) << summary(report);
        EXPECT_EQ(report.count(State::kHeld), 4) << summary(report);
    }
    setenv("TOY_BUG", bug, 1);
    return conform(options);
}

class Broken : public ::testing::TestWithParam<Bug> {};

TEST_P(Broken, IsNamedByItsLawWithASmallCase) {
    const Bug& bug = GetParam();
    const ConformReport report = conform_toy(bug.name);
    EXPECT_FALSE(report.sound());
    const ConformResult* first = nullptr;
    for (const ConformResult& r : report.results)
        if (r.state == State::kBroken && !first) first = &r;
    ASSERT_NE(first, nullptr) << summary(report);
    EXPECT_EQ(first->law, bug.law) << summary(report);
    EXPECT_NE(first->what.find(bug.says), std::string::npos) << first->what;
    // Formats and kernels do not stand in for each other.
    for (const ConformResult& r : report.results) {
        if (r.state != State::kBroken) continue;
        EXPECT_EQ(r.subject, first->subject) << summary(report);
    }
}

INSTANTIATE_TEST_SUITE_P(All, Broken, ::testing::ValuesIn(kBugs), [](const auto& info) {
    std::string name = info.param.name;
    for (char& c : name)
        if (c == '-') c = '_';
    return name;
});

TEST(Conform, ASoundPluginBreaksNothing) {
    const ConformReport report = conform_toy("");
    EXPECT_TRUE(report.sound()) << summary(report);
    // Every law but the readers'.
    for (const ConformLaw& law : conform_laws()) {
        if (law.name.starts_with("reader.")) continue;
        bool held = false;
        for (const ConformResult& r : report.results)
            held = held || (r.law == law.name && r.state == State::kHeld && r.cases > 0);
        EXPECT_TRUE(held) << law.name;
    }
}

/// Of toy's indexer without its format.
ConformReport conform_indexer(const char* variant, const char* bug) {
    setenv(variant, "1", 1);
    setenv("TOY_BUG", bug, 1);
    const ConformReport report = conform(toy_options());
    unsetenv(variant);
    return report;
}

TEST(Conform, AnIndexerIsTriedWithItsExamples) {
    const ConformReport sound = conform_indexer("TOY_EXAMPLES", "");
    EXPECT_TRUE(sound.sound()) << summary(sound);
    EXPECT_EQ(sound.count(State::kNotChecked), 0) << summary(sound);
    for (const ConformLaw& law : conform_laws()) {
        if (!law.name.starts_with("indexer.")) continue;
        bool held = false;
        for (const ConformResult& r : sound.results)
            held = held || (r.law == law.name && r.subject == "indexer toy" &&
                            r.state == State::kHeld && r.cases == toy_options().cases);
        EXPECT_TRUE(held) << law.name;
    }
    const ConformReport broken = conform_indexer("TOY_EXAMPLES", "indexer-missing");
    EXPECT_NE(summary(broken).find("indexer.rows | indexer toy | BROKEN piece t of 5 x 7"),
              std::string::npos)
        << summary(broken);
    const ConformReport none = conform_indexer("TOY_NO_FORMAT", "indexer-missing");
    EXPECT_EQ(summary(none),
              "indexer.* | indexer toy | not it has no examples, no format of the plugin has a "
              "sample, and no checkpoint was given\n");
}

TEST(Conform, TheSameSeedSaysTheSame) {
    setenv("TOY_BUG", "group-boundary", 1);
    ConformOptions options = toy_options();
    options.law = "codec";
    const std::string once = summary(conform(options));
    EXPECT_EQ(once, summary(conform(options)));
    EXPECT_NE(once.find("codec.interval"), std::string::npos) << once;
}

TEST(Conform, ALawIsChosenByItsPrefix) {
    setenv("TOY_BUG", "", 1);
    ConformOptions options = toy_options();
    options.law = "codec.interval";
    const ConformReport report = conform(options);
    for (const ConformResult& r : report.results)
        EXPECT_TRUE(r.law == "codec.interval" || r.law == "plugin.load") << r.law;
    EXPECT_TRUE(report.sound()) << summary(report);
    options.law = "no such law";
    EXPECT_THROW(conform(options), Error);
}

TEST(Conform, WhatIsNoPluginIsSaidSo) {
    const testing::TempDir folder;
    ConformOptions options;
    options.plugin = folder / "none.so";
    EXPECT_THROW(conform(options), Error);
    std::ofstream(options.plugin) << "no shared object";
    const ConformReport report = conform(options);
    EXPECT_FALSE(report.sound());
    ASSERT_EQ(report.results.size(), 1u);
    EXPECT_EQ(report.results[0].law, "plugin.load");
}

TEST(Conform, AllThatIsBuiltInHolds) {
    ConformOptions options;
    options.cases = 40;
    const ConformReport report = conform(options);
    EXPECT_TRUE(report.sound()) << summary(report);
    EXPECT_GT(report.count(State::kHeld), 100);
}

class Fixture : public ::testing::TestWithParam<std::string> {};

TEST_P(Fixture, Holds) {
    ConformOptions options;
    options.checkpoint = GetParam();
    options.cases = 40;
    const ConformReport report = conform(options);
    EXPECT_TRUE(report.sound()) << summary(report);
    for (const char* law : {"format.describe", "codec.round_trip", "codec.interval", "ranks"}) {
        bool held = false;
        for (const ConformResult& r : report.results)
            held = held || (r.law == law && r.state == State::kHeld);
        EXPECT_TRUE(held) << law;
    }
}

std::vector<std::string> entries(const std::string& folder, const std::string& extension) {
    std::vector<std::string> out;
    std::error_code none;
    for (const auto& e : std::filesystem::directory_iterator(folder, none))
        if (extension.empty() ? e.is_directory() : e.path().extension() == extension)
            out.push_back(e.path().string());
    std::sort(out.begin(), out.end());
    return out;
}

std::string case_name(const ::testing::TestParamInfo<std::string>& info) {
    std::string name = std::filesystem::path(info.param).stem().string();
    for (char& c : name)
        if (!isalnum(static_cast<unsigned char>(c))) c = '_';
    return name;
}

INSTANTIATE_TEST_SUITE_P(
    Quantized, Fixture,
    ::testing::ValuesIn(entries(CONCLAVE_SOURCE_DIR "/tests/fixtures/quantized", "")), case_name);

/// Those of the tree: build/plugins, and the example.
TEST(Conform, EveryPluginOfTheTreeHolds) {
    std::vector<std::string> plugins = entries(CONCLAVE_BINARY_DIR "/plugins", ".so");
    for (const std::string& p : entries(CONCLAVE_BINARY_DIR "/examples/plugins", ".so"))
        plugins.push_back(p);
    if (plugins.empty()) GTEST_SKIP() << "no plugin was built";
    for (const std::string& plugin : plugins) {
        ConformOptions options;
        options.plugin = plugin;
        const ConformReport report = conform(options);
        EXPECT_TRUE(report.sound()) << plugin << "\n" << summary(report);
    }
}

}  // namespace
}  // namespace conclave
