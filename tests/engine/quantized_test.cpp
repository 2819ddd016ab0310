// Quantized checkpoints, whole: what dequantize writes against the hashes of the format's own
// decode, logits against the reference, at many rank counts and layouts. The committed ones always;
// the zoo's where it is there.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include "tests/support/run_model.h"
#include "tests/support/sha256.h"
#include "tests/support/temp_dir.h"

namespace conclave::testing {
namespace {

namespace fs = std::filesystem;

const std::vector<std::pair<int, std::string>> kLayouts = {
    {1, "auto"}, {2, "tp"}, {2, "ep"}, {3, "tp"}, {3, "ep"},  {4, "tp"},  {4, "2x2"},
    {4, "ep"},   {5, "tp"}, {5, "ep"}, {8, "tp"}, {8, "2x4"}, {8, "4x2"}, {8, "ep"}};

/// The committed checkpoints, and those of the zoo whose names begin so.
std::vector<std::string> checkpoints() {
    std::vector<std::string> all = quantized_models();
    const fs::path zoo = fs::path(CONCLAVE_SOURCE_DIR) / ".." / "shared" / "zoo";
    std::error_code absent;
    for (const fs::path& folder : {zoo / "quantized", zoo})
        for (const auto& entry : fs::directory_iterator(folder, absent))
            for (const char* served :
                 {"odd-gptq-", "odd-awq-", "odd-ar-", "odd-hqq-", "odd-ct-w4a16-", "odd-ct-w8a16-",
                  "shakespeare-ct-w4a16-", "shakespeare-gptq-"})
                if (entry.path().filename().string().starts_with(served))
                    all.push_back(entry.path().string());
    std::sort(all.begin(), all.end());
    return all;
}

EngineOptions options_for(const std::string& model) {
    EngineOptions options;
    options.model = model;
    options.activations = "f32";
    options.threads = 1;
    options.max_model_len = 256;
    return options;
}

/// SHA-256 of every tensor of a folder with one or more safetensors files.
std::map<std::string, std::string> tensor_hashes(const std::string& folder) {
    std::map<std::string, std::string> hashes;
    for (const auto& entry : fs::directory_iterator(folder)) {
        if (entry.path().extension() != ".safetensors") continue;
        std::ifstream in(entry.path(), std::ios::binary);
        const std::string bytes{std::istreambuf_iterator<char>(in), {}};
        uint64_t length = 0;
        std::memcpy(&length, bytes.data(), 8);
        const auto header = nlohmann::json::parse(bytes.substr(8, length));
        for (const auto& [name, t] : header.items()) {
            if (name == "__metadata__") continue;
            const uint64_t begin = t["data_offsets"][0], end = t["data_offsets"][1];
            hashes[name] = sha256(bytes.substr(8 + length + begin, end - begin));
        }
    }
    return hashes;
}

nlohmann::json expected(const std::string& model) {
    std::ifstream in(model + "/expected.json");
    return nlohmann::json::parse(in);
}

class Quantized : public ::testing::TestWithParam<std::string> {};

TEST_P(Quantized, DequantizesToTheHashesOfItsOwnTool) {
    const std::string& model = GetParam();
    const auto want =
        expected(model)["weights_f32_sha256"].get<std::map<std::string, std::string>>();
    ASSERT_FALSE(want.empty());
    for (const int ranks : {1, 2, 3, 5}) {
        const TempDir dir;
        DequantizeOptions to;
        to.directory = dir / "plain";
        to.max_file_bytes = ranks == 3 ? 100000 : to.max_file_bytes;
        rethrow(on_ranks(ranks, [&](const Comm& comm) {
            const DequantizeReport report = dequantize(options_for(model), to, comm);
            EXPECT_EQ(report.files.size() > 1, ranks == 3);
        }));
        const auto got = tensor_hashes(to.directory);
        for (const auto& [name, hash] : want) {
            const auto at = got.find(name);
            ASSERT_TRUE(at != got.end()) << name << " was not written";
            EXPECT_EQ(at->second, hash) << name << " at " << ranks << " ranks";
        }
        EXPECT_EQ(got.size(), want.size());
    }
}

TEST_P(Quantized, LogitsEqualTheReference) {
    const std::string& model = GetParam();
    const Reference reference(model + "/expected.safetensors");
    EngineOptions options = options_for(model);
    for (const auto& [ranks, layout] : kLayouts) {
        options.expert_parallel = layout;
        std::vector<float> logits;
        std::vector<int32_t> greedy;
        EngineStats stats;
        with_engine(ranks, options, [&](Engine& engine) {
            for (const auto& ids : reference.input_ids) {
                const std::vector<float> one = score(engine, ids);
                logits.insert(logits.end(), one.begin(), one.end());
            }
            greedy = generate(engine, reference.greedy_prompt,
                              static_cast<int64_t>(reference.greedy_ids.size()));
            stats = engine.stats();
        });
        ASSERT_EQ(logits.size(), reference.logits.size());
        double worst = 0;
        for (size_t i = 0; i < logits.size(); ++i) {
            ASSERT_FALSE(std::isnan(logits[i])) << "logit " << i;
            worst = std::max(worst, std::abs(static_cast<double>(logits[i]) - reference.logits[i]));
        }
        // 1e-4 is the promise; plain float32 reaches 1e-5.
        EXPECT_LT(worst / reference.deviation(), 3e-5) << ranks << " ranks, " << layout;
        for (size_t i = 0; i < greedy.size() && reference.greedy_margin[i] >= 1e-2f; ++i)
            EXPECT_EQ(greedy[i], reference.greedy_ids[i]) << "greedy token " << i;
        EXPECT_EQ(stats.offset_tables, 0u);
        // Group indices are read once when layers are declared, and again nowhere.
        EXPECT_LE(stats.load_bytes_requested, stats.load_bytes_needed * 105 / 100)
            << ranks << " ranks, " << layout;
    }
}

TEST_P(Quantized, DeterministicLogitsAreEqualAtAllLayouts) {
    const std::string& model = GetParam();
    const Reference reference(model + "/expected.safetensors");
    EngineOptions options = options_for(model);
    options.deterministic = true;
    for (const char* activations : {"f32", "auto"}) {
        options.activations = activations;
        std::vector<float> first;
        for (const auto& [ranks, layout] : kLayouts) {
            options.expert_parallel = layout;
            std::vector<float> logits;
            with_engine(ranks, options,
                        [&](Engine& engine) { logits = score(engine, reference.input_ids[0]); });
            if (first.empty()) first = logits;
            EXPECT_TRUE(logits == first) << activations << ", " << ranks << " ranks, " << layout;
        }
    }
}

TEST_P(Quantized, Int8ActivationsStayClose) {
    const std::string& model = GetParam();
    const Reference reference(model + "/expected.safetensors");
    EngineOptions options = options_for(model);
    options.activations = "int8";
    for (const auto& [ranks, layout] : {std::pair<int, std::string>{1, "auto"}, {3, "tp"}}) {
        options.expert_parallel = layout;
        std::vector<float> logits;
        std::string description;
        with_engine(ranks, options, [&](Engine& engine) {
            for (const auto& ids : reference.input_ids) {
                const std::vector<float> one = score(engine, ids);
                logits.insert(logits.end(), one.begin(), one.end());
            }
            description = engine.description();
        });
        EXPECT_TRUE(description.starts_with("int8")) << description;
        double squares = 0;
        for (size_t i = 0; i < logits.size(); ++i) {
            const double d = static_cast<double>(logits[i]) - reference.logits[i];
            squares += d * d;
        }
        const double rms =
            std::sqrt(squares / static_cast<double>(logits.size())) / reference.deviation();
        EXPECT_LT(rms, 0.1) << ranks << " ranks";
        EXPECT_GT(rms, 1e-4) << "int8 activations were asked for, but f32 ones were used";
    }
}

std::string name_of(const ::testing::TestParamInfo<std::string>& info) {
    std::string s = info.param.find("/zoo/") != std::string::npos ? "zoo_" : "";
    s += info.param.substr(info.param.rfind('/') + 1);
    for (char& ch : s)
        if (ch == '-') ch = '_';
    return s;
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Quantized, ::testing::ValuesIn(checkpoints()), name_of);

}  // namespace
}  // namespace conclave::testing
