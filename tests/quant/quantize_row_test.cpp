// Activation rules: rows that the formats' own tools rounded, and random rows against the rules'
// formulas, whole and cut over ranks.
#include "quant/quantize_row.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tests/quant/formats/memory_tensors.h"
#include "tests/quant/rounding_reference.h"
#include "tests/quant/row_slices.h"

namespace conclave::quant::test {
namespace {

constexpr float kFp8Least = 1e-10f / 448;

/// The rules of the formats served, by what makes them up.
std::map<std::string, ActivationRule> all_rules() {
    const auto fp8 = ActivationCode::kE4M3, fp4 = ActivationCode::kE2M1;
    const auto int8 = ActivationCode::kInt8;
    return {
        {"int8 static", {.code = int8, .scale_rule = ScaleRule::kStatic, .scale = 0.061f}},
        {"int8 static asym",
         {.code = int8, .scale_rule = ScaleRule::kStatic, .scale = 0.03125f, .zero = -37}},
        {"int8 static zero inside",
         {.code = int8,
          .scale_rule = ScaleRule::kStatic,
          .scale = 0.03125f,
          .zero = 3,
          .zero_inside = true}},
        {"int8 token", {.code = int8, .scale_rule = ScaleRule::kAbsMax, .top = 127}},
        {"int8 token reciprocal",
         {.code = int8,
          .scale_rule = ScaleRule::kAbsMax,
          .top = 127.5f,
          .least = std::numeric_limits<float>::epsilon(),
          .reciprocal = true}},
        {"int8 token times", {.code = int8, .scale_rule = ScaleRule::kAmaxTimes, .top = 127}},
        {"int8 token outliers",
         {.code = int8, .scale_rule = ScaleRule::kAmaxTimes, .top = 127, .outlier = 1.5f}},
        {"int8 token asym", {.code = int8, .scale_rule = ScaleRule::kMinMax}},
        {"fp8 static", {.code = fp8, .scale_rule = ScaleRule::kStatic, .scale = 0.0178f}},
        {"fp8 token", {.code = fp8, .scale_rule = ScaleRule::kAbsMax, .top = 448}},
        {"fp8 token least",
         {.code = fp8, .scale_rule = ScaleRule::kAbsMax, .top = 448, .least = 1.0f / (448 * 512)}},
        {"fp8 group",
         {.code = fp8,
          .scale_rule = ScaleRule::kAbsMax,
          .group = 128,
          .top = 448,
          .least = kFp8Least}},
        {"mxfp8 ceil", {.code = fp8, .scale_rule = ScaleRule::kCeilPow2, .group = 32, .top = 448}},
        {"ue8m0",
         {.code = fp8,
          .scale_rule = ScaleRule::kCeilPow2,
          .group = 128,
          .top = 448,
          .least = 1e-10f}},
        {"mxfp8 even", {.code = fp8, .scale_rule = ScaleRule::kEvenPow2, .group = 32, .top = 8}},
        {"mxfp4", {.code = fp4, .scale_rule = ScaleRule::kEvenPow2, .group = 32, .top = 2}},
        {"nvfp4 times",
         {.code = fp4, .scale_rule = ScaleRule::kE4M3Times, .group = 16, .scale = 0.00472f}},
        {"nvfp4 over",
         {.code = fp4, .scale_rule = ScaleRule::kE4M3Over, .group = 16, .scale = 336}},
    };
}

class QuantizeRow : public testing::TestWithParam<Isa> {
  protected:
    void SetUp() override {
        if (!detect_cpu().has(GetParam()))
            GTEST_SKIP() << "this CPU has no " << isa_name(GetParam());
        CpuFeatures f;
        for (int i = 0; i <= static_cast<int>(GetParam()); ++i) f.mask |= 1u << i;
        ops = &vector_ops(f);
    }
    /// Whole, in granules of 32 columns over ranks, and cut anywhere, the row becomes `want`.
    void expect_row(const ActivationRule& rule, const std::vector<float>& x,
                    const std::vector<float>& want, const std::string& what) {
        const auto width = static_cast<int64_t>(x.size());
        for (const std::vector<int64_t>& cuts : row_cuts(width, random)) {
            const Sliced got = quantize_slices(rule, x, cuts, *ops);
            for (size_t c = 0; c < x.size(); ++c)
                ASSERT_TRUE(same_number(got.row[c], want[c]))
                    << what << ": x[" << c << "] = " << x[c] << " became " << got.row[c] << ", not "
                    << want[c] << ", in " << cuts.size() - 1 << " slices";
            if (!takes_int8_row(rule)) continue;
            for (size_t c = 0; c < x.size(); ++c)
                ASSERT_TRUE(same_int8(rule, got.int8[c], want[c]))
                    << what << ": int8 of x[" << c << "] = " << x[c] << " is " << got.int8[c]
                    << ", not " << want[c];
        }
    }
    std::vector<float> random_row(int64_t width) {
        std::vector<float> x = random.normals(width, std::ldexp(1.0f, random.in(-12, 12)));
        const int64_t kind = random.in(0, 3);
        for (float& v : x) {
            if (kind == 1 && random.in(0, 2) == 0) v = 0;
            if (kind == 2) v = std::ldexp(v, static_cast<int>(random.in(-20, 8)));
            if (kind == 3) v = std::round(v * 4) / 4;  // many ties
        }
        return x;
    }

    const VectorOps* ops = nullptr;
    Random random{11};
};

/// The rule of each checkpoint of the fixture; scales are stored beside the rows.
std::map<std::string, ActivationRule> fixture_rules() {
    auto all = all_rules();
    const ActivationRule fp8_group = all["fp8 group"];
    return {{"ct-fp8-block", fp8_group},
            {"ct-fp8-dynamic", all["fp8 token"]},
            {"ct-fp8-static", all["fp8 static"]},
            {"ct-mixed", all["fp8 token"]},
            {"ct-mxfp4", all["mxfp4"]},
            {"ct-nvfp4", all["nvfp4 over"]},
            {"ct-w8a8-int8-dynamic-asym", all["int8 token asym"]},
            {"ct-w8a8-int8-dynamic", all["int8 token"]},
            {"ct-w8a8-int8-static", all["int8 static"]},
            {"fp8-block-bf16s", fp8_group},
            {"fp8-block", fp8_group},
            {"fp8-tensor", all["fp8 static"]},
            {"modelopt-fp8-pc-pt", all["fp8 token least"]},
            {"modelopt-fp8", all["fp8 static"]},
            {"modelopt-mxfp8", all["mxfp8 ceil"]},
            {"modelopt-nvfp4", all["nvfp4 times"]},
            {"quark-fp8", all["fp8 static"]},
            {"quark-int8", all["int8 static zero inside"]},
            {"quark-mxfp4", all["mxfp4"]},
            {"tao-fp8dyn", all["fp8 token"]},
            {"tao-int8dyn", all["int8 token reciprocal"]}};
}

TEST_P(QuantizeRow, EqualsTheFormatsOwnTools) {
    const MemoryTensors vectors = MemoryTensors::from_file(
        CONCLAVE_SOURCE_DIR "/tests/fixtures/activation_rules/vectors.safetensors");
    const auto floats = [&](const std::string& name) {
        const MemoryTensor& t = vectors.all.at(name);
        std::vector<float> v(t.bytes.size() / 4);
        std::memcpy(v.data(), t.bytes.data(), t.bytes.size());
        return v;
    };
    const auto rules = fixture_rules();
    std::map<std::string, int> rows;
    for (const auto& [name, t] : vectors.all) {
        if (!name.ends_with(".x")) continue;
        const std::string checkpoint = name.substr(0, name.find('/'));
        const std::string stem = name.substr(0, name.size() - 2);
        ActivationRule rule = rules.at(checkpoint);
        if (vectors.header(stem + ".scale")) rule.scale = floats(stem + ".scale")[0];
        if (vectors.header(stem + ".zero")) rule.zero = floats(stem + ".zero")[0];
        const auto x = floats(name), y = floats(stem + ".y");
        const int64_t width = t.header.shape[1];
        for (int64_t r = 0; r < t.header.shape[0]; ++r, ++rows[checkpoint])
            expect_row(rule, {&x[r * width], &x[r * width] + width},
                       {&y[r * width], &y[r * width] + width}, stem + " row " + std::to_string(r));
    }
    for (const auto& [checkpoint, rule] : rules) EXPECT_GE(rows[checkpoint], 8) << checkpoint;
}

TEST_P(QuantizeRow, RandomRowsBecomeWhatTheFormulasSay) {
    for (const auto& [name, rule] : all_rules())
        for (int64_t width : {1, 7, 15, 16, 17, 31, 33, 96, 127, 128, 129, 200, 333})
            for (int round = 0; round < 3; ++round) {
                const auto x = random_row(width);
                ASSERT_NO_FATAL_FAILURE(expect_row(rule, x, reference(rule, x), name));
            }
}

TEST_P(QuantizeRow, ExtremesStayInTheirGroups) {
    const float kInf = std::numeric_limits<float>::infinity();
    const float values[] = {0,       -0.0f, std::nanf(""), kInf,   -kInf,   1e-45f,
                            -3e-40f, 1e38f, -3.4e38f,      1e-30f, 1000.5f, 2.5e7f};
    for (const auto& [name, rule] : all_rules())
        for (float v : values)
            for (int64_t width : {48, 131}) {
                auto x = random.normals(width);
                const int64_t at = random.in(0, width - 1);
                x[at] = v;
                ASSERT_NO_FATAL_FAILURE(expect_row(rule, x, reference(rule, x), name));
                if (!std::isfinite(v)) {
                    const auto y = quantize_slices(rule, x, {0, width}, *ops).row;
                    const int64_t group = rule.dynamic() && rule.group ? rule.group : width;
                    for (int64_t c = 0; c < width; ++c)
                        ASSERT_EQ(std::isnan(y[c]), c / group == at / group) << name << " " << c;
                }
                x.assign(static_cast<size_t>(width), v);
                ASSERT_NO_FATAL_FAILURE(expect_row(rule, x, reference(rule, x), name));
                if (v != 0) continue;
                for (float y : quantize_slices(rule, x, {0, width}, *ops).row)
                    ASSERT_EQ(y, 0) << name;
            }
}

TEST_P(QuantizeRow, RowsOfOneSignKeepTheirWholeRange) {
    const ActivationRule rule = all_rules()["int8 token asym"];
    for (const auto& [least, most] : std::vector<std::pair<float, float>>{{1000, 1001},
                                                                          {-1001, -1000},
                                                                          {1, 1.00001f},
                                                                          {3e6f, 3e6f + 2},
                                                                          {-9e7f, -8.9e7f},
                                                                          {0.1f, 7},
                                                                          {16777000, 16777216}}) {
        std::vector<float> x(99);
        for (float& v : x)
            v = std::clamp(least + (most - least) * random.in(0, 1000) / 1000.0f, least, most);
        x[3] = least, x[50] = most;
        const float step = (most - least) / 255;
        // x / s is rounded to f32 before it becomes whole.
        const float slack = std::max(std::fabs(least), std::fabs(most)) * 0x1p-22f;
        ASSERT_NO_FATAL_FAILURE(expect_row(rule, x, reference(rule, x), "int8 token asym"));
        const auto y = quantize_slices(rule, x, {0, 40, 99}, *ops).row;
        for (size_t c = 0; c < x.size(); ++c)
            ASSERT_NEAR(y[c], x[c], step + slack) << least << " .. " << most;
    }
}

TEST_P(QuantizeRow, TiesGoToTheEvenCode) {
    for (const std::string name : {"fp8 static", "int8 static", "int8 static zero inside"}) {
        ActivationRule rule = all_rules()[name];
        rule.scale = 1;
        std::vector<float> x;
        const bool fp8 = rule.code == ActivationCode::kE4M3;
        const std::vector<double> codes = fp8 ? magnitudes(4, 3) : magnitudes(7, 0);
        for (size_t i = 0; i + 1 < codes.size(); ++i) {
            const double low = fp8 ? codes[i] : static_cast<double>(i);
            const double high = fp8 ? codes[i + 1] : static_cast<double>(i + 1);
            const auto tie = static_cast<float>((low + high) / 2);
            for (float v : {static_cast<float>(low), tie, std::nextafter(tie, 1e9f),
                            std::nextafter(tie, -1e9f)})
                x.insert(x.end(), {v, -v});
        }
        ASSERT_NO_FATAL_FAILURE(expect_row(rule, x, reference(rule, x), name));
    }
}

TEST_P(QuantizeRow, PowersOfTwoAreRoundedUpAndDownAtTheirEdges) {
    auto all = all_rules();
    for (const std::string name : {"mxfp8 ceil", "ue8m0", "mxfp8 even", "mxfp4"})
        for (float at : {448.0f, 7.0f, 1.75f, 1.0f, 448 * 0x1p-127f, 448 * 0x1.8p-127f,
                         448 * 0x1p-126f, 448 * 0x1p-40f, 448 * 0x1p100f, 0x1.cp-126f})
            for (float amax : {std::nextafter(at, 0.0f), at, std::nextafter(at, 3e38f)}) {
                std::vector<float> x(33);
                for (float& v : x)  // down to subnormal codes: the others show no power of two
                    v = std::ldexp(amax * static_cast<float>(random.in(-64, 64)) / 64,
                                   -static_cast<int>(random.in(0, 14)));
                x[5] = x[32] = -amax;
                ASSERT_NO_FATAL_FAILURE(expect_row(all[name], x, reference(all[name], x), name));
            }
}

/// Hostile or extreme scales: zeros where the scale is 0 or has no inverse, NaN where it is none.
TEST_P(QuantizeRow, ScalesOutOfRangeGiveZerosOrNaN) {
    const float kInf = std::numeric_limits<float>::infinity();
    const auto becomes = [&](ActivationRule rule, const std::vector<float>& x) {
        const Sliced got = quantize_slices(rule, x, {0, static_cast<int64_t>(x.size())}, *ops);
        for (size_t c = 0; c < x.size(); ++c)
            EXPECT_TRUE(same_number(got.row[c], got.row[0])) << rule.to_string();
        if (takes_int8_row(rule)) {
            const auto width = static_cast<int64_t>(x.size());
            const Grouping groups = uniform_grouping({0, width}, 0);
            const auto statistics = combined_statistics(rule, x, {0, width}, *ops);
            const AlignedBytes row =
                int8_row(rule, x.data(), {{0, width}, width}, statistics.data(), groups, *ops);
            EXPECT_TRUE(same_number(int8_factors(row, groups).scale, got.row[0]));
            for (size_t c = 0; c < x.size(); ++c) EXPECT_EQ(row.data()[c], std::byte{0});
        }
        return got.row[0];
    };
    auto all = all_rules();
    const std::vector<float> some = {1, -2, 0, 3}, tiny = {1e-42f, 0, -3e-43f};
    for (const char* name : {"int8 static", "fp8 static", "int8 static asym"}) {
        ActivationRule rule = all[name];
        for (const auto& [scale, zero] :
             {std::pair{0.0f, true}, {-0.0f, true}, {kInf, false}, {std::nanf(""), false}}) {
            rule.scale = scale;
            const float y = becomes(rule, some);
            EXPECT_TRUE(zero ? y == 0 : std::isnan(y)) << name << " " << scale;
        }
    }
    EXPECT_TRUE(std::isnan(becomes(all["int8 token asym"], {3e38f, 0, -3e38f})));
    ActivationRule reciprocal = all["int8 token reciprocal"];
    reciprocal.least = 0;
    EXPECT_EQ(becomes(reciprocal, tiny), 0);
    for (const char* name : {"nvfp4 times", "nvfp4 over"})
        for (float scale : {0.0f, 1e-42f, kInf, -1.0f, std::nanf("")}) {
            ActivationRule rule = all[name];
            rule.scale = scale;
            if (name == std::string("nvfp4 over") && scale == 1e-42f) continue;
            const float y = becomes(rule, some);
            EXPECT_EQ(y, 0) << name << " " << scale;
        }
}

TEST_P(QuantizeRow, StatisticsSayWhatIsNotHeld) {
    const float kInf = std::numeric_limits<float>::infinity();
    const ActivationRule rule{
        .code = ActivationCode::kE4M3, .scale_rule = ScaleRule::kAbsMax, .group = 16, .top = 448};
    EXPECT_EQ(statistics_per_row(rule, 100), 7);
    EXPECT_EQ(statistics_per_row({}, 100), 0);
    const std::vector<float> x = {1, -5, 2, 3, std::nanf(""), 0, -0.0f};
    std::vector<float> out(8, kPoison);
    row_statistics(rule, x.data(), {{30, 37}, 100}, *ops, out.data());
    EXPECT_EQ(out[0], -kInf);
    EXPECT_EQ(out[1], 5);
    EXPECT_EQ(out[2], kInf);
    for (int g = 3; g < 7; ++g) EXPECT_EQ(out[g], -kInf);
    EXPECT_EQ(bits(out[7]), bits(kPoison));
    row_statistics(rule, x.data(), {{40, 40}, 100}, *ops, out.data());
    for (int g = 0; g < 7; ++g) EXPECT_EQ(out[g], -kInf);
    const ActivationRule range{.code = ActivationCode::kInt8, .scale_rule = ScaleRule::kMinMax};
    EXPECT_EQ(statistics_per_row(range, 100), 2);
    row_statistics(range, x.data(), {{30, 34}, 100}, *ops, out.data());
    EXPECT_EQ(out[0], 3);
    EXPECT_EQ(out[1], 5);
    row_statistics(range, x.data() + 2, {{30, 32}, 100}, *ops, out.data());
    EXPECT_EQ(out[0], 3);
    EXPECT_EQ(out[1], -2);
    row_statistics(range, x.data(), {{30, 37}, 100}, *ops, out.data());
    EXPECT_EQ(out[0], kInf);
    EXPECT_EQ(out[1], kInf);
}

TEST_P(QuantizeRow, Int8RowsFollowTheGrouping) {
    for (const auto& [name, rule] : all_rules()) {
        if (!takes_int8_row(rule)) continue;
        for (int64_t width : {5, 64, 77, 260}) {
            std::vector<int32_t> group_of(static_cast<size_t>(width));
            for (int32_t& g : group_of) g = static_cast<int32_t>(random.in(0, 4));
            for (const Grouping& groups :
                 {permuted_grouping(group_of), uniform_grouping({3, 3 + width}, 32)}) {
                auto x = random_row(width);
                const auto plain = quantize_slices(rule, x, {0, width}, *ops);
                expect_int8_row(rule, x, groups, plain.codes, *ops);
                x[width / 2] = std::nanf("");
                expect_int8_row(rule, x, groups, std::vector<int>(x.size(), 0), *ops);
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, QuantizeRow, testing::Values(Isa::kGeneric, Isa::kAvx2, Isa::kAvx512),
                         [](const auto& info) { return std::string(isa_name(info.param)); });

}  // namespace
}  // namespace conclave::quant::test
