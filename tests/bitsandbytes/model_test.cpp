// Checkpoints of bitsandbytes, whole, through an engine that loaded the plugin.
#include <gtest/gtest.h>

#include "tests/bitsandbytes/made_checkpoint.h"
#include "tests/support/quantized_model.h"

namespace conclave::testing {
namespace {

namespace fs = std::filesystem;

/// Loaded once: plugins stay.
const std::shared_ptr<const engine::Extensions>& extensions() {
    static const auto made = [] {
        const Plugins plugins = load_plugins({CONCLAVE_BINARY_DIR "/plugins"});
        for (const PluginReport& r : plugins.found)
            if (r.name == "bitsandbytes" && r.refusal.empty()) return plugins.extensions;
        std::string what =
            "the plugin bitsandbytes was not loaded from " CONCLAVE_BINARY_DIR "/plugins";
        for (const PluginReport& r : plugins.found) what += "; " + r.file + ": " + r.refusal;
        throw std::runtime_error(what);
    }();
    return made;
}

/// The committed checkpoints, and the zoo's where it is there.
std::vector<std::string> checkpoints() {
    std::vector<std::string> all;
    const fs::path zoo = fs::path(CONCLAVE_SOURCE_DIR) / ".." / "shared" / "zoo";
    std::error_code absent;
    for (const auto& entry : fs::directory_iterator(fixture("bitsandbytes")))
        all.push_back(entry.path().string());
    for (const fs::path& folder : {zoo / "quantized", zoo})
        for (const auto& entry : fs::directory_iterator(folder, absent))
            for (const char* served : {"odd-bnb-", "shakespeare-bnb-"})
                if (entry.path().filename().string().starts_with(served))
                    all.push_back(entry.path().string());
    std::sort(all.begin(), all.end());
    return all;
}

class BitsAndBytes : public ::testing::TestWithParam<std::string> {
  protected:
    EngineOptions options() const { return options_for(GetParam(), extensions()); }
};

TEST_P(BitsAndBytes, DequantizesToTheHashesOfItsOwnTool) { expect_dequantized_hashes(options()); }

TEST_P(BitsAndBytes, LogitsEqualTheReference) {
    expect_reference_logits(options(), GetParam().find("int8") == std::string::npos);
}

TEST_P(BitsAndBytes, DeterministicLogitsAreEqualAtAllLayouts) {
    expect_deterministic_logits(options());
}

TEST_P(BitsAndBytes, LlmInt8IsFollowed) { expect_own_activation_rule(options()); }

TEST_P(BitsAndBytes, WeightsStayInTheirCodes) {
    const ModelSummary summary = inspect(options());
    const bool int8 = GetParam().find("int8") != std::string::npos;
    uint64_t bytes = 0;
    for (const EncodingBytes& m : summary.matrices)
        if (m.encoding.starts_with(int8 ? "int8" : "nf4")) bytes += m.bytes;
    // Most of the weights are quantized. 4 bits and, where blocks of 64 are cut into runs of 32, an
    // f32 scale for 32 weights: 5 bits.
    const auto weights = static_cast<double>(summary.parameters);
    EXPECT_LT(static_cast<double>(bytes), weights * (int8 ? 1.05 : 0.65));
    EXPECT_GT(static_cast<double>(bytes), weights * (int8 ? 0.8 : 0.4));
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, BitsAndBytes, ::testing::ValuesIn(checkpoints()), name_of);

TEST(BitsAndBytesMade, FusedAndStackedMatricesAreThoseOfAPlainCheckpoint) {
    const bitsandbytes::test::MadeCheckpoint made(fixture("qwen3moe-fused"));
    const Reference reference(fixture("qwen3moe-fused") + "/expected.safetensors");
    EngineOptions options = options_for(made.plain());
    std::vector<float> want;
    with_engine(1, options, [&](Engine& engine) { want = all_logits(engine, reference); });
    for (const bool deterministic : {false, true}) {
        options = options_for(made.quantized(), extensions());
        options.deterministic = deterministic;
        std::vector<float> first;
        for (const auto& [ranks, layout] : kLayouts) {
            options.expert_parallel = layout;
            std::vector<float> got;
            with_engine(ranks, options,
                        [&](Engine& engine) { got = all_logits(engine, reference); });
            ASSERT_EQ(got.size(), want.size());
            double worst = 0;
            for (size_t i = 0; i < got.size(); ++i)
                worst = std::max(worst, std::fabs(static_cast<double>(got[i]) - want[i]));
            EXPECT_LT(worst / reference.deviation(), 3e-5) << ranks << " ranks, " << layout;
            if (first.empty()) first = got;
            if (deterministic) {
                EXPECT_TRUE(got == first) << ranks << " ranks, " << layout;
            }
        }
    }
}

TEST(BitsAndBytesMade, FusedAndStackedMatricesAreDequantizedBitForBit) {
    const bitsandbytes::test::MadeCheckpoint made(fixture("qwen3moe-fused"));
    std::map<std::string, std::string> want;
    for (const int ranks : {1, 2, 3, 5, 8}) {
        const TempDir dir;
        for (const bool quantized : {false, true}) {
            if (!quantized && !want.empty()) continue;
            DequantizeOptions to;
            to.directory = dir / (quantized ? "a" : "b");
            const EngineOptions options =
                quantized ? options_for(made.quantized(), extensions()) : options_for(made.plain());
            rethrow(on_ranks(quantized ? ranks : 1,
                             [&](const Comm& comm) { dequantize(options, to, comm); }));
            const auto got = tensor_hashes(to.directory);
            if (!quantized)
                want = got;
            else
                EXPECT_EQ(got, want) << ranks << " ranks";
        }
    }
}

TEST(BitsAndBytesPlugin, AScaleThatIsNoNumberIsRefused) {
    const TempDir dir;
    const std::string from = fixture("bitsandbytes/nf4-double");
    fs::copy(from + "/config.json", dir / "config.json");
    auto tensors = quant::test::MemoryTensors::from_folder(from);
    const std::string bad = "model.layers.1.mlp.experts.3.up_proj.weight.nested_absmax";
    std::memset(tensors.all.at(bad).bytes.data() + 4, 0xff, 4);
    std::vector<TensorToWrite> all;
    for (const auto& [name, t] : tensors.all)
        all.push_back({name,
                       t.header.dtype,
                       t.header.shape,
                       {reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size()}});
    write_safetensors(dir / "model.safetensors", all);
    for (const int ranks : {1, 3}) try {
            with_engine(ranks, options_for(dir.path(), extensions()), [](Engine&) {});
            ADD_FAILURE() << "it was loaded";
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kBadContent);
            EXPECT_NE(std::string(e.what()).find("experts.3.up_proj.weight"), std::string::npos)
                << e.what();
        }
}

TEST(BitsAndBytesPlugin, WithoutItTheFormatIsRefused) {
    try {
        Engine engine(options_for(fixture("bitsandbytes/int8")), Comm::self());
        FAIL() << "it runs";
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
        EXPECT_NE(std::string(e.what()).find("bitsandbytes"), std::string::npos) << e.what();
    }
}

}  // namespace
}  // namespace conclave::testing
