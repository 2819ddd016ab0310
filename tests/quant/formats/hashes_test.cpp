// Whole checkpoints: the decode of every weight against the hash of the format's own decode.
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <set>

#include "quant/formats/formats.h"
#include "tests/quant/formats/memory_tensors.h"
#include "tests/support/sha256.h"

namespace conclave::quant {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json read_json_file(const fs::path& path) {
    std::ifstream in(path);
    return json::parse(in);
}

std::unique_ptr<QuantizationConfig> format_of(const fs::path& folder) {
    const QuantizationRegistry registry = QuantizationRegistry::built_in();
    const auto read = [&](const std::string& name) -> std::optional<Sidecar> {
        const fs::path file = folder / name;
        if (!fs::exists(file)) return std::nullopt;
        return Sidecar{read_json_file(file), file.string()};
    };
    const auto source =
        registry.source(read_json_file(folder / "config.json"), "config.json", read);
    return registry.find(source.method)->from_config(source.config, source.file);
}

/// The logical size that a checkpoint's tensors tell; the model knows it otherwise.
std::pair<int64_t, int64_t> size_of(const std::string& stem, const test::MemoryTensors& tensors) {
    for (const char* shape : {".weight_shape", ".shape"})
        if (const auto it = tensors.all.find(stem + shape); it != tensors.all.end()) {
            std::array<int64_t, 2> values;
            std::memcpy(values.data(), it->second.bytes.data(), 16);
            return {values[0], values[1]};
        }
    if (const auto marlin = tensors.header(stem + ".B"))
        return {marlin->shape[1] / 2, marlin->shape[0] * 16};
    if (const auto packed = tensors.header(stem + ".qweight")) {
        const int64_t n = tensors.header(stem + ".scales")->shape[1];
        if (packed->shape[1] != n) return {n, packed->shape[0]};  // AWQ's words hold rows
        const auto groups = tensors.header(stem + ".g_idx");
        return {n, groups ? groups->shape[0] : packed->shape[0] * 8};
    }
    if (const auto bytes = tensors.header(stem + ".weight_packed"))
        return {bytes->shape[0], bytes->shape[1] * 2};
    if (const auto data = tensors.header(stem + "._weight_qdata")) {
        const bool nibbles = tensors.texts.at(stem + ".weight").find("Int4") != std::string::npos;
        return {data->shape[0], data->shape[1] * (nibbles ? 2 : 1)};
    }
    const auto weight = tensors.header(stem + ".weight");
    const auto scales = tensors.header(stem + ".weight_scale");
    const int64_t rows = weight->shape[0], columns = weight->shape[1];
    if (weight->dtype == "I32") return {scales->shape[1], rows};  // Quark's words hold rows
    if (weight->dtype == "U8" && scales->shape[0] == 2 * rows) return {2 * rows, columns};
    return {rows, weight->dtype == "U8" ? 2 * columns : columns};
}

fs::path folder_of(const std::string& name) {
    const fs::path fixture = fs::path(CONCLAVE_SOURCE_DIR) / "tests/fixtures/quantized" / name;
    if (fs::exists(fixture)) return fixture;
    const fs::path zoo = fs::path(CONCLAVE_SOURCE_DIR) / ".." / "shared" / "zoo";
    const fs::path odd = zoo / "quantized" / ("odd-" + name);
    return fs::exists(odd) ? odd : zoo / name;
}

class Hashes : public ::testing::TestWithParam<const char*> {};

TEST_P(Hashes, DecodeEqualsTheFormatsOwn) {
    const fs::path folder = folder_of(GetParam());
    if (!fs::exists(folder)) GTEST_SKIP() << "no checkpoint " << GetParam() << " here";
    const auto format = format_of(folder);
    const json expected = read_json_file(folder / "expected.json")["weights_f32_sha256"];
    const auto tensors = test::MemoryTensors::from_folder(folder);
    std::mt19937 rng(7);
    std::set<std::string> used;
    int quantized = 0, matrices = 0;
    for (const auto& [name, hash] : expected.items()) {
        const auto plain = tensors.header(name);
        if (!name.ends_with(".weight") || (plain && plain->shape.size() != 2)) {
            used.insert(name);
            continue;
        }
        const std::string stem = name.substr(0, name.size() - 7);
        const auto [n, k] = size_of(stem, tensors);
        const auto m = format->describe(test::matrix_source(stem, n, k), tensors);
        ASSERT_TRUE(m) << name;
        ++matrices;
        for (const StoredPiece& p : m->pieces) used.insert(p.tensor);
        used.insert(m->companions.begin(), m->companions.end());
        quantized += is_scaled(m->encoding.code);
        std::vector<float> values;
        const auto read = tensors.reader(*m);
        for (int64_t r = 0; r < n;) {
            const int64_t end = std::min(n, r + 1 + static_cast<int64_t>(rng() % n));
            const auto rows = test::decode_rows(*m, {r, end}, {0, k}, read, rng);
            values.insert(values.end(), rows.begin(), rows.end());
            r = end;
        }
        test::expect_cuts(*m, values, read, 3, rng);
        const std::string_view bytes(reinterpret_cast<const char*>(values.data()),
                                     values.size() * sizeof(float));
        EXPECT_EQ(testing::sha256(bytes), hash.get<std::string>()) << name;
    }
    EXPECT_GT(quantized, 20) << "of " << matrices;
    for (const auto& [name, t] : tensors.all) EXPECT_TRUE(used.count(name)) << name;
}

/// gpt-oss: 3-D parameters, hashed as [E, in, out].
TEST(Hashes3D, DecodeEqualsTheFormatsOwn) {
    const fs::path folder =
        fs::path(CONCLAVE_SOURCE_DIR) / ".." / "shared" / "zoo" / "later" / "gpt-oss-mxfp4";
    if (!fs::exists(folder)) GTEST_SKIP() << "no checkpoint gpt-oss-mxfp4 here";
    const auto format = format_of(folder);
    const json expected = read_json_file(folder / "expected.json")["weights_f32_sha256"];
    const auto tensors = test::MemoryTensors::from_folder(folder);
    std::mt19937 rng(8);
    int stacks = 0;
    for (const auto& [name, hash] : expected.items()) {
        const auto blocks = tensors.header(name + "_blocks");
        if (!blocks) continue;
        ++stacks;
        const int64_t experts = blocks->shape[0], n = blocks->shape[1], k = blocks->shape[2] * 32;
        std::vector<float> transposed(static_cast<size_t>(experts * n * k));
        for (int64_t e = 0; e < experts; ++e) {
            MatrixSource source = test::matrix_source(name, n, k);
            source.bare = true;
            source.lead = e;
            source.lead_count = experts;
            const auto m = format->describe(source, tensors);
            ASSERT_TRUE(m && m->encoding.code == CodeType::kT4) << name;
            const auto read = tensors.reader(*m);
            const auto values = test::decode_rows(*m, {0, n}, {0, k}, read, rng);
            test::expect_cuts(*m, values, read, 2, rng);
            for (int64_t r = 0; r < n; ++r)
                for (int64_t c = 0; c < k; ++c)
                    transposed[static_cast<size_t>((e * k + c) * n + r)] =
                        values[static_cast<size_t>(r * k + c)];
        }
        const std::string_view bytes(reinterpret_cast<const char*>(transposed.data()),
                                     transposed.size() * sizeof(float));
        EXPECT_EQ(testing::sha256(bytes), hash.get<std::string>()) << name;
    }
    EXPECT_EQ(stacks, 8);
}

INSTANTIATE_TEST_SUITE_P(
    , Hashes,
    ::testing::Values("gptq-3bit-g32", "gptq-4bit-g32-asym", "gptq-4bit-g32-asym-v2",
                      "gptq-4bit-g32-sym", "gptq-4bit-g64-actorder", "gptq-8bit-channel",
                      "gptq-dynamic", "awq-gemm-g32", "awq-gemm-g64", "ar-awq-4bit-g32",
                      "ar-gptq-4bit-g32", "ct-w4a16-g32-sym", "ct-w4a16-g64-asym",
                      "ct-w4a16-g32-actorder", "ct-w8a16-channel", "ct-w8a8-int8-dynamic",
                      "tao-int8dyn", "tao-int8wo", "tao-fp8dyn", "tao-int4plain", "dsfp-fp8-g128",
                      "ct-fp8-block", "ct-fp8-dynamic", "ct-fp8-static", "ct-mixed", "ct-mxfp4",
                      "ct-nvfp4", "ct-nvfp4a16", "ct-w8a8-int8-dynamic-asym", "ct-w8a8-int8-static",
                      "hqq-4bit-g64", "fp8-block", "fp8-block-bf16s", "fp8-tensor", "modelopt-fp8",
                      "modelopt-fp8-pc-pt", "modelopt-int4-awq", "modelopt-mxfp8", "modelopt-nvfp4",
                      "quark-fp8", "quark-int8", "quark-mxfp4", "quark-uint4-g32",
                      "shakespeare-ct-w4a16-g32-sym", "shakespeare-gptq-marlin-4bit-g128"),
    [](const auto& info) {
        std::string name = info.param;
        std::replace(name.begin(), name.end(), '-', '_');
        return name;
    });

}  // namespace
}  // namespace conclave::quant
