// Dummy weights: a function of name and place alone, so every layout runs the same model.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/run_model.h"
#include "tests/support/temp_dir.h"

namespace conclave::testing {
namespace {

TEST(Dummy, EveryLayoutRunsTheSameModelWithoutFiles) {
    for (const char* name : {"qwen3moe-odd", "qwen2moe", "mixtral", "olmoe"}) {
        TempDir dir;
        std::filesystem::copy_file(fixture(name) + "/config.json", dir / "config.json");
        EngineOptions options;
        options.model = dir.path();
        options.load_format = "dummy";
        options.deterministic = true;
        options.threads = 1;
        options.max_model_len = 64;
        std::vector<float> first;
        for (const auto& [ranks, layout] : std::vector<std::pair<int, std::string>>{
                 {1, "auto"}, {3, "tp"}, {4, "2x2"}, {2, "ep"}}) {
            options.expert_parallel = layout;
            std::vector<float> logits;
            EngineStats stats;
            with_engine(ranks, options, [&](Engine& engine) {
                logits = score(engine, {1, 2, 3, 4, 5, 6, 7});
                stats = engine.stats();
            });
            double squares = 0;
            for (float v : logits) {
                ASSERT_TRUE(std::isfinite(v)) << name;
                squares += static_cast<double>(v) * v;
            }
            const double rms = std::sqrt(squares / static_cast<double>(logits.size()));
            EXPECT_GT(rms, 0.2) << name;
            EXPECT_LT(rms, 5) << name;
            EXPECT_EQ(stats.load_bytes_requested, 0u);
            EXPECT_GT(stats.weight_bytes_read, 0u);
            if (first.empty()) first = logits;
            EXPECT_TRUE(logits == first) << name << " " << ranks << " " << layout;
        }
        EXPECT_THROW(inspect(dir.path()), Error) << "without dummy weights files must be there";
        EXPECT_EQ(plan(options, 3).ranks.size(), 3u);
    }
}

TEST(Dummy, TypesAndRefusals) {
    EngineOptions options;
    options.model = fixture("llama");
    options.load_format = "dummy";
    options.threads = 1;
    options.max_model_len = 32;
    uint64_t bytes[2];
    for (int i = 0; i < 2; ++i) {
        options.dummy_dtype = i ? "f32" : "f16";
        with_engine(1, options,
                    [&](Engine& engine) { bytes[i] = engine.stats().resident_weight_bytes; });
    }
    EXPECT_GT(bytes[1], bytes[0] * 19 / 10);
    options.dummy_dtype = "int4-g24";  // a group that divides nothing
    with_engine(1, options, [&](Engine& engine) {
        EXPECT_LT(engine.stats().resident_weight_bytes, bytes[0] * 3 / 4);  // embeddings stay bf16
        EXPECT_EQ(generate(engine, {1, 2, 3}, 4).size(), 4u);
    });
    for (const char* type : {"w8a8", "fp8", "mxfp8", "mxfp4", "nvfp4"}) {
        options.dummy_dtype = type;
        with_engine(1, options, [&](Engine& engine) {
            EXPECT_LT(engine.stats().resident_weight_bytes, bytes[0] * 4 / 5) << type;
            for (const float v : score(engine, {1, 2, 3, 4})) EXPECT_TRUE(std::isfinite(v)) << type;
        });
    }
    for (const char* unknown : {"int1", "int9", "int4-", "int4-g0", "int4-g", "int4-g8x", "u4"}) {
        options.dummy_dtype = unknown;
        EXPECT_THROW(Engine(options, Comm::self()), Error) << unknown;
    }
    options.dummy_dtype = "bf16";
    options.load_format = "smart";
    EXPECT_THROW(Engine(options, Comm::self()), Error);
}

TEST(Dummy, ReadBandwidthIsAPositiveNumber) {
    EngineOptions options;
    options.threads = 1;
    std::vector<double> rates(2);
    rethrow(on_ranks(2, [&](const Comm& c) { rates[c.rank()] = read_bandwidth(options, c); }));
    EXPECT_GT(rates[0], 1e6);
    EXPECT_EQ(rates[0], rates[1]);
}

}  // namespace
}  // namespace conclave::testing
