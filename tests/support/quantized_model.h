// What every quantized checkpoint with references is held to, whichever format serves it:
// `options` name the model and, for formats of plugins, the extensions.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/support/run_model.h"
#include "tests/support/sha256.h"
#include "tests/support/temp_dir.h"

namespace conclave::testing {

inline const std::vector<std::pair<int, std::string>> kLayouts = {
    {1, "auto"}, {2, "tp"}, {2, "ep"}, {3, "tp"}, {3, "ep"},  {4, "tp"},  {4, "2x2"},
    {4, "ep"},   {5, "tp"}, {5, "ep"}, {8, "tp"}, {8, "2x4"}, {8, "4x2"}, {8, "ep"}};

inline EngineOptions options_for(const std::string& model,
                                 std::shared_ptr<const engine::Extensions> extensions = nullptr) {
    EngineOptions options;
    options.model = model;
    options.extensions = std::move(extensions);
    options.activations = "f32";
    options.threads = 1;
    options.max_model_len = 256;
    return options;
}

/// SHA-256 of every tensor of a folder with one or more safetensors files.
inline std::map<std::string, std::string> tensor_hashes(const std::string& folder) {
    std::map<std::string, std::string> hashes;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
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

inline nlohmann::json expected(const std::string& model) {
    std::ifstream in(reference_file(model, "json"));
    return nlohmann::json::parse(in);
}

/// What dequantize() writes at several rank counts, in one file and in several.
inline void expect_dequantized_hashes(const EngineOptions& options) {
    const auto want =
        expected(options.model)["weights_f32_sha256"].get<std::map<std::string, std::string>>();
    ASSERT_FALSE(want.empty());
    for (const int ranks : {1, 2, 3, 5}) {
        const TempDir dir;
        DequantizeOptions to;
        to.directory = dir / "plain";
        to.max_file_bytes = ranks == 3 ? 100000 : to.max_file_bytes;
        rethrow(on_ranks(ranks, [&](const Comm& comm) {
            const DequantizeReport report = dequantize(options, to, comm);
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

/// Logits of every row of the reference, one after the other.
inline std::vector<float> all_logits(Engine& engine, const Reference& reference) {
    std::vector<float> logits;
    for (const auto& ids : reference.input_ids) {
        const std::vector<float> one = score(engine, ids);
        logits.insert(logits.end(), one.begin(), one.end());
    }
    return logits;
}

/// How far logits [positions, vocabulary] are from others: root mean square, and the mean over
/// positions of KL(others || logits).
struct Distance {
    double rms = 0, kl = 0;
};
inline Distance distance(const std::vector<float>& logits, const std::vector<float>& others,
                         size_t vocabulary) {
    Distance d;
    const auto log_sum = [&](const float* row) {
        const float most = *std::max_element(row, row + vocabulary);
        double sum = 0;
        for (size_t v = 0; v < vocabulary; ++v) sum += std::exp(static_cast<double>(row[v] - most));
        return most + std::log(sum);
    };
    for (size_t at = 0; at < logits.size(); at += vocabulary) {
        const float *p = others.data() + at, *q = logits.data() + at;
        const double p_sum = log_sum(p), q_sum = log_sum(q);
        for (size_t v = 0; v < vocabulary; ++v) {
            d.rms += (p[v] - q[v]) * static_cast<double>(p[v] - q[v]);
            d.kl += std::exp(p[v] - p_sum) * ((p[v] - p_sum) - (q[v] - q_sum));
        }
    }
    d.rms = std::sqrt(d.rms / static_cast<double>(logits.size()));
    d.kl /= static_cast<double>(logits.size() / vocabulary);
    return d;
}

/// Logits and greedy tokens at all layouts. `indexed`: matrices are read through offset tables.
inline void expect_reference_logits(EngineOptions options, bool indexed) {
    const Reference reference(reference_file(options.model, "safetensors"));
    for (const auto& [ranks, layout] : kLayouts) {
        options.expert_parallel = layout;
        std::vector<float> logits;
        std::vector<int32_t> greedy;
        EngineStats stats;
        with_engine(ranks, options, [&](Engine& engine) {
            logits = all_logits(engine, reference);
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
        EXPECT_EQ(stats.offset_tables > 0, indexed);
        // Group indices are read once when layers are declared, and again nowhere.
        EXPECT_LE(stats.load_bytes_requested, stats.load_bytes_needed * 105 / 100)
            << ranks << " ranks, " << layout;
    }
}

/// Deterministic logits, at all layouts the same.
inline void expect_deterministic_logits(EngineOptions options) {
    const Reference reference(reference_file(options.model, "safetensors"));
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

/// Not to 1e-4: a last bit before a rounding step, or a router's tie, changes these random models
/// visibly. The bounds are those of the reference to its own unquantized activations.
inline void expect_own_activation_rule(EngineOptions options) {
    const std::string model = options.model;
    if (!std::filesystem::exists(model + "/expected-act.json"))
        GTEST_SKIP() << "no activation rule";
    std::ifstream in(model + "/expected-act.json");
    const auto bounds = nlohmann::json::parse(in);
    const Reference reference(model + "/expected-act.safetensors"),
        unquantized(model + "/expected.safetensors");
    options.activations = "auto";
    options.kv_cache_dtype = "f32";  // as the reference, which has none
    for (const auto& [ranks, layout] : kLayouts) {
        options.expert_parallel = layout;
        std::vector<float> logits;
        size_t vocabulary = 0;
        with_engine(ranks, options, [&](Engine& engine) {
            logits = all_logits(engine, reference);
            vocabulary = static_cast<size_t>(engine.vocab_size());
        });
        const Distance d = distance(logits, reference.logits, vocabulary);
        EXPECT_LE(d.rms / unquantized.deviation(),
                  bounds["rms_difference_to_unquantized_activations"].get<double>())
            << ranks << " ranks, " << layout;
        EXPECT_LE(d.kl, 2 * bounds["mean_kl_to_unquantized_activations"].get<double>())
            << ranks << " ranks, " << layout;
        EXPECT_GT(distance(logits, unquantized.logits, vocabulary).rms, 1e-4);
    }
}

inline std::string name_of(const ::testing::TestParamInfo<std::string>& info) {
    std::string s = info.param.find("/zoo/") != std::string::npos ? "zoo_" : "";
    s += info.param.substr(info.param.rfind('/') + 1);
    for (char& ch : s)
        if (ch == '-' || ch == '.') ch = '_';
    return s;
}

}  // namespace conclave::testing
