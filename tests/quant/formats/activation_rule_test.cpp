// The activation rules that formats give their matrices: rows that the formats' own tools rounded,
// whole and cut over ranks.
#include <gtest/gtest.h>

#include "quant/formats/formats.h"
#include "tests/quant/formats/memory_tensors.h"
#include "tests/quant/row_slices.h"

namespace conclave::quant {
namespace {

namespace fs = std::filesystem;

Json read_json(const fs::path& path) {
    std::ifstream in(path);
    return Json::parse(in);
}

std::unique_ptr<QuantizationConfig> format_of(const fs::path& folder) {
    const QuantizationRegistry registry = QuantizationRegistry::built_in();
    const auto source =
        registry.source(read_json(folder / "config.json"), "config.json",
                        [&](const std::string& name) -> std::optional<Sidecar> {
                            if (!fs::exists(folder / name)) return std::nullopt;
                            return Sidecar{read_json(folder / name), (folder / name).string()};
                        });
    const QuantizationFormat* format = registry.find(source.method);
    if (!format) throw Error(ErrorCode::kUnsupported, "no format " + source.method);
    return format->from_config(source.config, source.file);
}

/// Rows of the stored weight of a layer: "STEM.weight", "STEM._weight_qdata" ...
int64_t rows_of(const std::string& stem, const test::MemoryTensors& tensors) {
    for (const auto& [name, t] : tensors.all)
        if (name.starts_with(stem + ".") && t.header.shape.size() == 2) return t.header.shape[0];
    return 0;
}

std::vector<float> row_of(const test::MemoryTensor& t, int64_t row) {
    std::vector<float> values(static_cast<size_t>(t.header.shape[1]));
    std::memcpy(values.data(), t.bytes.data() + static_cast<size_t>(row) * values.size() * 4,
                values.size() * 4);
    return values;
}

class ActivationRules : public ::testing::TestWithParam<const char*> {
  protected:
    void expect_row(const std::optional<ActivationRule>& rule, const std::vector<float>& x,
                    const std::vector<float>& y, const std::string& what) {
        if (!rule) {
            EXPECT_EQ(x, y) << what << " has no rule";
            return;
        }
        const VectorOps& ops = vector_ops(detect_cpu());
        for (const auto& cuts : test::row_cuts(static_cast<int64_t>(x.size()), random_)) {
            const test::Sliced got = test::quantize_slices(*rule, x, cuts, ops);
            ASSERT_EQ(got.row, y) << what << ", " << rule->to_string() << ", in " << cuts.size() - 1
                                  << " slices";
            if (test::takes_int8_row(*rule)) {
                ASSERT_EQ(got.int8, y) << what;
            }
        }
    }

    test::Random random_{3};
};

TEST_P(ActivationRules, RoundAsTheFormatsOwnTools) {
    const std::string name = GetParam();
    fs::path folder = fs::path(CONCLAVE_SOURCE_DIR) / "tests/fixtures/quantized" / name;
    if (!fs::exists(folder / "activation-rule.safetensors"))
        folder = fs::path(CONCLAVE_SOURCE_DIR) / "../shared/zoo/quantized" / ("odd-" + name);
    if (!fs::exists(folder)) GTEST_SKIP() << "no checkpoint " << name << " here";
    const auto format = format_of(folder);
    const auto tensors = test::MemoryTensors::from_folder(folder);
    const auto vectors =
        test::MemoryTensors::from_file((folder / "activation-rule.safetensors").string());
    int rows = 0;
    for (const auto& [tensor, x] : vectors.all) {
        if (!tensor.ends_with(".x")) continue;
        const std::string stem = tensor.substr(0, tensor.size() - 2);
        const auto& y = vectors.all.at(stem + ".y");
        const int64_t n = rows_of(stem, tensors), k = x.header.shape[1];
        const auto matrix = format->describe(test::matrix_source(stem, n, k), tensors);
        ASSERT_TRUE(matrix) << stem;
        for (int64_t r = 0; r < x.header.shape[0]; ++r, ++rows)
            ASSERT_NO_FATAL_FAILURE(expect_row(matrix->activation, row_of(x, r), row_of(y, r),
                                               stem + " row " + std::to_string(r)));
    }
    EXPECT_GE(rows, 32);
}

INSTANTIATE_TEST_SUITE_P(
    , ActivationRules,
    ::testing::Values("ct-fp8-block", "ct-fp8-dynamic", "ct-fp8-static", "ct-mixed", "ct-mxfp4",
                      "ct-nvfp4", "ct-w8a8-int8-dynamic", "ct-w8a8-int8-dynamic-asym",
                      "ct-w8a8-int8-static", "fp8-block", "fp8-block-bf16s", "fp8-tensor",
                      "modelopt-fp8", "modelopt-fp8-pc-pt", "modelopt-mxfp8", "modelopt-nvfp4",
                      "quark-fp8", "quark-int8", "quark-mxfp4", "tao-fp8dyn", "tao-int8dyn"),
    [](const auto& info) {
        std::string name = info.param;
        std::replace(name.begin(), name.end(), '-', '_');
        return name;
    });

}  // namespace
}  // namespace conclave::quant
