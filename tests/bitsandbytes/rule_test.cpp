// LLM.int8's inputs: rows that the library itself rounded, the rows of a layer one batch, whole and
// with their columns cut over ranks.
#include <gtest/gtest.h>

#include <fstream>

#include "tests/bitsandbytes/staged.h"
#include "tests/quant/prepared_batch.h"
#include "tests/quant/row_slices.h"

namespace bitsandbytes::test {
namespace {

const std::string kFixture = CONCLAVE_SOURCE_DIR "/tests/fixtures/bitsandbytes/int8";

std::vector<float> floats(const MemoryTensor& t) {
    std::vector<float> v(t.bytes.size() / 4);
    std::memcpy(v.data(), t.bytes.data(), t.bytes.size());
    return v;
}

TEST(Rule, RowsBecomeWhatTheLibraryMadeOfThem) {
    std::ifstream in(kFixture + "/config.json");
    const Json config = Json::parse(in)["quantization_config"];
    const MemoryTensors weights = MemoryTensors::from_folder(kFixture);
    const MemoryTensors rows = MemoryTensors::from_file(kFixture + "/activation-rule.safetensors");
    quant::test::Random random(41);
    int layers = 0, kept = 0;
    for (const auto& [name, t] : rows.all) {
        if (!name.ends_with(".x")) continue;
        const std::string stem = name.substr(0, name.size() - 2);
        const auto x = floats(t), y = floats(rows.all.at(stem + ".y"));
        const int64_t width = t.header.shape[1];
        const auto& shape = weights.all.at(stem + ".weight").header.shape;
        ASSERT_EQ(shape[1], width);
        const auto m = describe(quant::test::matrix_source(stem, shape[0], width), weights, config);
        ASSERT_TRUE(m && m->activation);
        for (const auto& cuts : quant::test::row_cuts(width, random))
            ASSERT_EQ(quant::test::prepare_batch(*m->activation, x, width, cuts), y)
                << stem << " in " << cuts.size() - 1 << " slices";
        for (size_t i = 0; i < x.size(); ++i) kept += x[i] != 0 && x[i] == y[i];
        ++layers;
    }
    EXPECT_EQ(layers, 4);
    EXPECT_GT(kept, 100) << "no outliers in the fixture";
}

}  // namespace
}  // namespace bitsandbytes::test
