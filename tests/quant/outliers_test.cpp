// Inputs whose outlier columns stay as they are: which columns those are in a batch.
#include <gtest/gtest.h>

#include "tests/quant/prepared_batch.h"
#include "tests/quant/rounding_reference.h"
#include "tests/quant/row_slices.h"

namespace conclave::quant::test {
namespace {

ActivationRule rule_with(float outlier, bool batch) {
    return {.code = ActivationCode::kInt8,
            .scale_rule = ScaleRule::kAmaxTimes,
            .top = 127,
            .outlier = outlier,
            .batch = batch};
}

/// Row after row, with the outliers of all of them where the rule says so.
std::vector<float> reference_batch(const ActivationRule& rule, const std::vector<float>& x,
                                   int64_t width) {
    const auto rows = static_cast<int64_t>(x.size()) / width;
    std::vector<bool> all(static_cast<size_t>(width));
    for (int64_t r = 0; r < rows; ++r) {
        const auto own = own_outliers(rule, &x[static_cast<size_t>(r * width)], width);
        for (size_t c = 0; c < own.size(); ++c) all[c] = all[c] || own[c];
    }
    std::vector<float> y;
    for (int64_t r = 0; r < rows; ++r) {
        const float* row = &x[static_cast<size_t>(r * width)];
        const auto rounded = reference_amax_times(
            rule, row, width, rule.batch ? all : own_outliers(rule, row, width));
        y.insert(y.end(), rounded.begin(), rounded.end());
    }
    return y;
}

TEST(Outliers, OfABatchAreThoseOfAllItsRows) {
    Random random(23);
    for (int round = 0; round < 80; ++round) {
        const int64_t width = random.in(1, 700), rows = random.in(1, 9);
        const auto x = random.normals(rows * width);
        const ActivationRule rule = rule_with(random.in(0, 1) ? 2.5f : 1.25f, round % 3 != 0);
        const auto want = reference_batch(rule, x, width);
        for (const auto& cuts : row_cuts(width, random))
            ASSERT_EQ(prepare_batch(rule, x, width, cuts), want)
                << rows << " x " << width << ", batch " << rule.batch << ", " << cuts.size() - 1
                << " slices";
        // An expert's rows are a batch of their own.
        std::vector<int32_t> picked;
        std::vector<float> some;
        for (int32_t r = 0; r < rows; ++r)
            if (random.in(0, 1)) {
                picked.push_back(r);
                some.insert(some.end(), &x[static_cast<size_t>(r * width)],
                            &x[static_cast<size_t>(r * width)] + width);
            }
        if (picked.empty()) continue;
        const auto alone = reference_batch(rule, some, width);
        for (const auto& cuts : row_cuts(width, random))
            ASSERT_EQ(prepare_batch(rule, x, width, cuts, &picked), alone) << "rows of an expert";
    }
}

TEST(Outliers, RowsDoNotDependOnTheBatchInDeterministicMode) {
    const ActivationRule own = rule_with(2.5f, true);
    Encoding int8;
    int8.code = CodeType::kU8, int8.bits = 8, int8.scale = FactorType::kF32, int8.zero_point = 128;
    EXPECT_EQ(choose_activation_rule(int8, &own, Activations::kAuto), own);
    const ActivationRule alone = choose_activation_rule(int8, &own, Activations::kAuto, true);
    EXPECT_EQ(alone, rule_with(2.5f, false));
    Random random(29);
    const auto x = random.normals(6 * 200);
    const auto whole = prepare_batch(alone, x, 200, {0, 200});
    for (int32_t r = 0; r < 6; ++r) {
        const std::vector<int32_t> one{r};
        const auto y = prepare_batch(alone, x, 200, {0, 200}, &one);
        EXPECT_TRUE(std::equal(y.begin(), y.end(), whole.begin() + r * 200));
    }
}

TEST(Outliers, ANumberThatIsNotFiniteSpoilsItsRowAlone) {
    Random random(31);
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()})
        for (const bool batch : {false, true}) {
            auto x = random.normals(3 * 100);
            x[130] = bad;
            const auto y = prepare_batch(rule_with(2, batch), x, 100, {0, 64, 100});
            for (size_t i = 0; i < y.size(); ++i)
                ASSERT_EQ(std::isnan(y[i]), i / 100 == 1) << i << " " << bad;
        }
}

TEST(Outliers, KernelsOfInt8RowsRefuseThem) {
    Encoding int8;
    int8.code = CodeType::kU8, int8.bits = 8, int8.scale = FactorType::kF32, int8.zero_point = 128;
    CpuFeatures cpu;
    cpu.mask = 1;
    for (const float outlier : {0.0f, 6.0f}) {
        PartDescriptor part{"p", 8, {}, rule_with(outlier, outlier > 0)};
        part.layout.k = 64, part.layout.encoding = int8;
        part.layout.groups = std::make_shared<Grouping>(uniform_grouping({0, 64}, 0));
        const LinearDescriptor linear{{part}};
        const auto choice = KernelRegistry::built_in().select(linear, part, cpu);
        ASSERT_NE(choice.kernel, nullptr);
        EXPECT_EQ(choice.kernel->x, outlier > 0 ? XType::kF32 : XType::kI8Row);
    }
}

/// (code * scale) * multiplier, not code * (scale * multiplier): they differ.
TEST(GlobalScale, ThatComesLastMultipliesTheProduct) {
    Random random(37);
    constexpr int64_t kColumns = 300;
    MatrixLayout layout;
    layout.k = kColumns;
    layout.encoding.code = CodeType::kU8, layout.encoding.bits = 8;
    layout.encoding.scale = FactorType::kF32, layout.encoding.zero_point = 128;
    layout.groups = std::make_shared<Grouping>(uniform_grouping({0, kColumns}, 0));
    layout.global = {.multiplier = 1.0f / 127, .last = true};
    const RowDecoder decoder(layout);
    int differ = 0;
    for (int round = 0; round < 20; ++round) {
        std::vector<std::byte> codes(kColumns);
        for (std::byte& b : codes) b = static_cast<std::byte>(random.in(0, 255));
        const float scale = random.normals(1)[0];
        CodeTile tile;
        tile.codes = codes.data(), tile.row_bytes = kColumns, tile.rows = 1, tile.cols = kColumns;
        tile.scales = &scale, tile.factor_stride = 1;
        std::vector<float> out(kColumns, kPoison);
        decoder.decode(tile, 0, out.data());
        for (size_t c = 0; c < out.size(); ++c) {
            const float code = static_cast<float>(static_cast<int>(codes[c]) - 128);
            const float product = code * scale, folded = scale * layout.global.multiplier;
            ASSERT_EQ(out[c], product * layout.global.multiplier);
            differ += out[c] != code * folded;
        }
    }
    EXPECT_GT(differ, 100);
}

}  // namespace
}  // namespace conclave::quant::test
