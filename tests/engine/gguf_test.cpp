// GGUF files, whole: what dequantize writes against the hashes of llama.cpp's own decode, logits
// against the reference, at many rank counts and layouts. The committed one always; the zoo's where
// it is there.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/quantized_model.h"

namespace conclave::testing {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> files() {
    std::vector<std::string> all;
    const fs::path zoo = fs::path(CONCLAVE_SOURCE_DIR) / ".." / "shared" / "zoo" / "gguf";
    std::error_code absent;
    for (const fs::path& folder : {fs::path(fixture("gguf")), zoo})
        for (const auto& entry : fs::directory_iterator(folder, absent)) {
            const std::string path = entry.path().string();
            const bool later_part = path.find("-of-") != std::string::npos &&
                                    path.find("-00001-of-") == std::string::npos;
            if (path.ends_with(".gguf") && !later_part) all.push_back(path);
        }
    std::sort(all.begin(), all.end());
    return all;
}

class Gguf : public ::testing::TestWithParam<std::string> {};

TEST_P(Gguf, DequantizesToTheHashesOfItsOwnTool) {
    expect_dequantized_hashes(options_for(GetParam()));
}

TEST_P(Gguf, LogitsEqualTheReference) { expect_reference_logits(options_for(GetParam()), false); }

TEST_P(Gguf, DeterministicLogitsAreEqualAtAllLayouts) {
    expect_deterministic_logits(options_for(GetParam()));
}

TEST(GgufSplit, IsTheSameModelAsOneFile) {
    const std::string zoo = std::string(CONCLAVE_SOURCE_DIR) + "/../shared/zoo/gguf/";
    const std::string whole = zoo + "k256-Q4_K_M.gguf";
    const std::string parts = zoo + "k256-split-Q4_K_M-00001-of-00002.gguf";
    if (!fs::exists(whole) || !fs::exists(parts)) GTEST_SKIP() << "no zoo here";
    const Reference reference(reference_file(whole, "safetensors"));
    std::vector<float> logits[2];
    for (const auto& [i, model] : {std::pair{0, whole}, {1, parts}})
        with_engine(2, options_for(model), [&, i = i](Engine& engine) {
            logits[i] = score(engine, reference.input_ids[0]);
        });
    EXPECT_TRUE(logits[0] == logits[1]);
}

INSTANTIATE_TEST_SUITE_P(, Gguf, ::testing::ValuesIn(files()), name_of);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Gguf);

}  // namespace
}  // namespace conclave::testing
