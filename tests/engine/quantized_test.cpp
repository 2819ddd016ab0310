// Quantized checkpoints, whole: what dequantize writes against the hashes of the format's own
// decode, logits against the reference, at many rank counts and layouts. The committed ones always;
// the zoo's where it is there.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/support/quantized_model.h"

namespace conclave::testing {
namespace {

namespace fs = std::filesystem;

/// The committed checkpoints, and those of the zoo whose names begin so.
std::vector<std::string> checkpoints() {
    std::vector<std::string> all = quantized_models();
    const fs::path zoo = fs::path(CONCLAVE_SOURCE_DIR) / ".." / "shared" / "zoo";
    std::error_code absent;
    for (const fs::path& folder : {zoo / "quantized", zoo})
        for (const auto& entry : fs::directory_iterator(folder, absent))
            for (const char* served : {"odd-gptq-", "odd-awq-", "odd-ar-", "odd-hqq-", "odd-ct-",
                                       "odd-fp8-", "odd-modelopt-", "odd-quark-", "odd-tao-",
                                       "odd-dsfp-", "shakespeare-ct-w4a16-", "shakespeare-gptq-"})
                if (entry.path().filename().string().starts_with(served))
                    all.push_back(entry.path().string());
    std::sort(all.begin(), all.end());
    return all;
}

class Quantized : public ::testing::TestWithParam<std::string> {};

TEST_P(Quantized, DequantizesToTheHashesOfItsOwnTool) {
    expect_dequantized_hashes(options_for(GetParam()));
}

TEST_P(Quantized, LogitsEqualTheReference) {
    expect_reference_logits(options_for(GetParam()), false);
}

TEST_P(Quantized, DeterministicLogitsAreEqualAtAllLayouts) {
    expect_deterministic_logits(options_for(GetParam()));
}

TEST_P(Quantized, TheFormatsOwnActivationRuleIsFollowed) {
    expect_own_activation_rule(options_for(GetParam()));
}

/// Whether most matrices have codes that are integers, so that the engine's own int8 serves them.
bool has_integer_codes(const std::string& model) {
    for (const EncodingBytes& m : inspect(model).matrices)
        if (m.encoding.starts_with("int") || m.encoding.starts_with("fp4")) return true;
    return false;
}

TEST_P(Quantized, Int8ActivationsStayClose) {
    const std::string& model = GetParam();
    if (!has_integer_codes(model)) GTEST_SKIP() << "no integer codes";
    const Reference reference(model + "/expected.safetensors");
    EngineOptions options = options_for(model);
    options.activations = "int8";
    for (const auto& [ranks, layout] : {std::pair<int, std::string>{1, "auto"}, {3, "tp"}}) {
        options.expert_parallel = layout;
        std::vector<float> logits;
        std::string description;
        size_t vocabulary = 0;
        with_engine(ranks, options, [&](Engine& engine) {
            logits = all_logits(engine, reference);
            description = engine.description();
            vocabulary = static_cast<size_t>(engine.vocab_size());
        });
        EXPECT_NE(description.find("int8"), std::string::npos) << description;
        const double rms =
            distance(logits, reference.logits, vocabulary).rms / reference.deviation();
        EXPECT_LT(rms, 0.1) << ranks << " ranks";
        EXPECT_GT(rms, 1e-4) << "int8 activations were asked for, but f32 ones were used";
    }
}

/// Bytes of the codes, scales and zeros of a checkpoint's quantized matrices, zeros that a
/// symmetric format repeats left out, and of its float matrices.
uint64_t bytes_held(const std::string& model) {
    std::ifstream config(model + "/config.json");
    const auto parsed = nlohmann::json::parse(config);
    const bool symmetric = parsed["quantization_config"].value("sym", false);
    uint64_t bytes = 0;
    nlohmann::json tensors = nlohmann::json::object();
    for (const auto& entry : fs::directory_iterator(model)) {
        if (!entry.path().filename().string().starts_with("model") ||
            entry.path().extension() != ".safetensors")
            continue;
        std::ifstream in(entry.path(), std::ios::binary);
        uint64_t length = 0;
        in.read(reinterpret_cast<char*>(&length), 8);
        std::string text(length, '\0');
        in.read(text.data(), static_cast<std::streamsize>(length));
        tensors.update(nlohmann::json::parse(text));
    }
    for (const auto& [name, t] : tensors.items()) {
        if (name == "__metadata__") continue;
        const std::string leaf = name.substr(name.rfind('.') + 1);
        const bool matrix = leaf == "weight" && t["shape"].size() == 2;
        const bool part = leaf == "qweight" || leaf == "scales" ||
                          (leaf == "qzeros" && !symmetric) || leaf == "weight_packed" ||
                          leaf == "weight_scale" || leaf == "weight_zero_point" || leaf == "W_q" ||
                          leaf == "scale" || leaf == "zero" || leaf == "B" || leaf == "s" ||
                          leaf == "weight_scale_inv" || leaf == "_weight_qdata" ||
                          leaf == "_weight_scale" || leaf == "_weight_zero_point";
        if (matrix || part)
            bytes += t["data_offsets"][1].get<uint64_t>() - t["data_offsets"][0].get<uint64_t>();
    }
    return bytes;
}

TEST_P(Quantized, WeightsStayInTheirCodes) {
    const std::string& model = GetParam();
    if (model.find("3bit") != std::string::npos || model.find("w8a8") != std::string::npos ||
        model.find("hqq") != std::string::npos || model.find("dsfp") != std::string::npos)
        GTEST_SKIP() << "packed to 4 bits, quantized at load, or with factors that the file shares "
                        "between groups";
    const double held = static_cast<double>(bytes_held(model));
    // On several ranks: KV heads and routers are held by more than one, and where columns of
    // act-order groups are cut (o_proj), each group is padded to 8 columns; a scale of many rows is
    // kept by each of them.
    bool more = model.find("actorder") != std::string::npos;
    for (const EncodingBytes& m : inspect(model).matrices)
        more = more || m.encoding.find('x') != std::string::npos || m.encoding.ends_with("tensor");
    const double shared = more ? 1.10 : 1.06;
    for (const auto& [ranks, most] : {std::pair{1, more ? 1.05 : 1.03}, {2, shared}, {3, shared}}) {
        std::vector<uint64_t> resident(static_cast<size_t>(ranks));
        rethrow(on_ranks(ranks, [&](const Comm& comm) {
            EngineOptions options = options_for(model);
            options.expert_parallel = "ep";
            Engine engine(options, comm);
            resident[static_cast<size_t>(comm.rank())] = engine.stats().resident_weight_bytes;
            if (comm.rank() == 0) return engine.shutdown();
            engine.follow();
        }));
        double sum = 0;
        for (uint64_t r : resident) sum += static_cast<double>(r);
        EXPECT_LE(sum / held, most) << ranks << " ranks";
        EXPECT_GE(sum / held, 0.99) << ranks << " ranks";
    }
}

TEST(QuantizedLater, WeightsOfAModelThatCannotRunAreDequantized) {
    const std::string model = fixture("later/gpt-oss-mxfp4");
    expect_dequantized_hashes(options_for(model));
    const ModelSummary summary = inspect(model);
    EXPECT_FALSE(summary.supported);
    EXPECT_NE(summary.unsupported_reason.find("not computed"), std::string::npos);
    EXPECT_EQ(summary.parameters, 1323960);
    try {
        Engine engine(options_for(model), Comm::self());
        FAIL() << "it runs";
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
        EXPECT_NE(std::string(e.what()).find("GptOssForCausalLM"), std::string::npos) << e.what();
    }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Quantized, ::testing::ValuesIn(checkpoints()), name_of);

}  // namespace
}  // namespace conclave::testing
