// compressed-tensors: float weights, and what its schemes do to inputs.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "quant/formats/formats.h"
#include "runtime/base/half.h"
#include "tests/quant/formats/memory_tensors.h"

namespace conclave::quant {
namespace {

using nlohmann::json;
using test::MemoryTensors;

/// E4M3 of a byte that is no NaN.
float e4m3(uint8_t byte) {
    const int e = byte >> 3 & 15, m = byte & 7;
    const float v = e ? std::ldexp(1 + static_cast<float>(m) / 8, e - 7)
                      : std::ldexp(static_cast<float>(m) / 8, -6);
    return byte & 128 ? -v : v;
}
float e2m1(int code) {
    constexpr std::array<float, 8> kLevels = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    const float v = kLevels[static_cast<size_t>(code & 7)];
    return code & 8 ? -v : v;
}

json config_of(const json& weights, const json& inputs = nullptr) {
    return {
        {"format", "mixed-precision"},
        {"config_groups",
         {{"g", {{"targets", {"Linear"}}, {"weights", weights}, {"input_activations", inputs}}}}}};
}
json args(const char* type, int bits, const char* strategy, json more = json::object()) {
    more.update({{"type", type}, {"num_bits", bits}, {"strategy", strategy}});
    return more;
}

std::optional<StoredMatrix> describe(const json& config, const MemoryTensors& tensors, int64_t n,
                                     int64_t k, const std::string& stem = "m") {
    return compressed_tensors_format()
        .from_config(config, "the-file")
        ->describe(test::matrix_source(stem, n, k), tensors);
}

template <class F>
std::string refusal(F f) {
    try {
        f();
    } catch (const Error& e) {
        EXPECT_TRUE(e.code() == ErrorCode::kBadContent || e.code() == ErrorCode::kUnsupported);
        return e.what();
    }
    return "";
}

std::vector<uint8_t> random_bytes(int64_t count, std::mt19937& rng) {
    std::vector<uint8_t> bytes(static_cast<size_t>(count));
    for (uint8_t& b : bytes) {
        b = static_cast<uint8_t>(rng());
        if ((b & 127) == 127) b = 1;
    }
    return bytes;
}

TEST(CompressedTensorsFloat, EightBitsOfEveryGrid) {
    std::mt19937 rng(1);
    for (int i = 0; i < 120; ++i) {
        const int64_t n = 1 + static_cast<int64_t>(rng() % 150);
        const int64_t k = 1 + static_cast<int64_t>(rng() % 200);
        const int kind = static_cast<int>(rng() % 5);
        int64_t rows = 1, columns = k;
        json weights = args("float", 8, "channel");
        if (kind == 0) {
            weights = args("float", 8, "tensor");
            rows = n;
        } else if (kind >= 2) {
            columns = std::array{16, 32, 128}[rng() % 3];
            weights = args("float", 8, "group", {{"group_size", columns}});
        }
        if (kind == 3) {
            rows = std::array{16, 100, 128}[rng() % 3];
            const json as_text = std::to_string(rows) + "x" + std::to_string(columns);
            weights = args("float", 8, "block",
                           {{"block_structure", rng() % 2 ? as_text : json{rows, columns}}});
        }
        const bool powers = kind == 4;
        const int64_t grid_rows = (n + rows - 1) / rows, groups = (k + columns - 1) / columns;
        const auto codes = random_bytes(n * k, rng);
        std::vector<float> scales;
        std::vector<uint8_t> exponents;
        std::vector<uint16_t> halves;
        for (int64_t s = 0; s < grid_rows * groups; ++s) {
            exponents.push_back(static_cast<uint8_t>(110 + rng() % 30));
            halves.push_back(f32_to_bf16(0.01f * static_cast<float>(1 + rng() % 99)));
            scales.push_back(powers ? std::ldexp(1.0f, exponents.back() - 127)
                                    : bf16_to_f32(halves.back()));
        }
        std::vector<float> values;
        for (int64_t r = 0; r < n; ++r)
            for (int64_t c = 0; c < k; ++c)
                values.push_back(e4m3(codes[static_cast<size_t>(r * k + c)]) *
                                 scales[static_cast<size_t>(r / rows * groups + c / columns)]);
        MemoryTensors tensors;
        tensors.all["m.weight"] = test::tensor("F8_E4M3", {n, k}, codes);
        const std::vector<int64_t> grid =
            kind == 0 ? std::vector<int64_t>{1} : std::vector<int64_t>{grid_rows, groups};
        tensors.all["m.weight_scale"] =
            powers ? test::tensor("U8", grid, exponents) : test::tensor("BF16", grid, halves);
        const auto m = describe(config_of(weights), tensors, n, k);
        ASSERT_TRUE(m);
        EXPECT_FALSE(m->activation);
        test::expect_cuts(*m, values, tensors.reader(*m), 3, rng);
    }
}

/// NVFP4: a scale of E4M3 is divided by the global one first.
TEST(CompressedTensorsFloat, FourBitsUnderAGlobalDivisor) {
    std::mt19937 rng(2);
    const int64_t n = 21, k = 72, groups = 5;
    const auto bytes = random_bytes(n * k / 2, rng), scales = random_bytes(n * groups, rng);
    const float global = 1537.25f;
    std::vector<float> values;
    for (int64_t r = 0; r < n; ++r)
        for (int64_t c = 0; c < k; ++c) {
            const int code = bytes[static_cast<size_t>((r * k + c) / 2)] >> (c % 2 * 4) & 15;
            values.push_back(e2m1(code) *
                             (e4m3(scales[static_cast<size_t>(r * groups + c / 16)]) / global));
        }
    MemoryTensors tensors;
    tensors.all["m.weight_packed"] = test::tensor("U8", {n, k / 2}, bytes);
    tensors.all["m.weight_scale"] = test::tensor("F8_E4M3", {n, groups}, scales);
    tensors.all["m.weight_global_scale"] = test::tensor("F32", {1}, std::vector<float>{global});
    const json weights = args("float", 4, "tensor_group", {{"group_size", 16}});
    const auto m = describe(config_of(weights), tensors, n, k);
    ASSERT_TRUE(m);
    test::expect_cuts(*m, values, tensors.reader(*m), 8, rng);
    for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity()}) {
        tensors.all["m.weight_global_scale"] = test::tensor("F32", {1}, std::vector<float>{bad});
        EXPECT_NE(refusal([&] {
                      describe(config_of(weights), tensors, n, k);
                  }).find("m.weight_global_scale"),
                  std::string::npos);
    }
    tensors.all.erase("m.weight_global_scale");
    EXPECT_NE(
        refusal([&] { describe(config_of(weights), tensors, n, k); }).find("m.weight_global_scale"),
        std::string::npos);
}

MemoryTensors fp8_tensors(const std::string& stem) {
    MemoryTensors t;
    t.all[stem + ".weight"] = test::tensor("F8_E4M3", {2, 4}, std::vector<uint8_t>(8));
    t.all[stem + ".weight_scale"] = test::tensor("F32", {2, 1}, std::vector<float>(2, 1));
    return t;
}

TEST(CompressedTensorsFloat, RulesOfInputs) {
    const auto rule = [](const json& inputs, const MemoryTensors& t, const std::string& stem) {
        return describe(config_of(args("float", 8, "channel"), inputs), t, 2, 4, stem)->activation;
    };
    MemoryTensors t = fp8_tensors("m");
    const json dynamic = {{"dynamic", true}};
    EXPECT_EQ(*rule(args("float", 8, "token", dynamic), t, "m"),
              (ActivationRule{.code = ActivationCode::kE4M3,
                              .scale_rule = ScaleRule::kAbsMax,
                              .top = 448,
                              .least = 1.0f / (448 * 512)}));
    EXPECT_EQ(*rule(args("int", 8, "token", dynamic), t, "m"),
              (ActivationRule{
                  .code = ActivationCode::kInt8, .scale_rule = ScaleRule::kAbsMax, .top = 127}));
    json asymmetric = args("int", 8, "token", dynamic);
    asymmetric["symmetric"] = false;
    EXPECT_EQ(*rule(asymmetric, t, "m"),
              (ActivationRule{.code = ActivationCode::kInt8, .scale_rule = ScaleRule::kMinMax}));
    for (const char* type : {"int", "float"})
        EXPECT_EQ(rule(args(type, 8, "tensor", dynamic), t, "m"),
                  rule(args(type, 8, "token", dynamic), t, "m"));
    const json mx = {{"dynamic", true}, {"group_size", 32}, {"scale_dtype", "torch.uint8"}};
    EXPECT_EQ(*rule(args("float", 8, "group", mx), t, "m"),
              (ActivationRule{.code = ActivationCode::kE4M3,
                              .scale_rule = ScaleRule::kEvenPow2,
                              .group = 32,
                              .top = 8}));
    EXPECT_EQ(*rule(args("float", 4, "group", mx), t, "m"),
              (ActivationRule{.code = ActivationCode::kE2M1,
                              .scale_rule = ScaleRule::kEvenPow2,
                              .group = 32,
                              .top = 2}));
    const auto grouped =
        *rule(args("float", 8, "group", {{"dynamic", true}, {"group_size", 128}}), t, "m");
    EXPECT_EQ(grouped.group, 128);
    EXPECT_EQ(grouped.scale_rule, ScaleRule::kAbsMax);
    // The name of an MX format tells of groups only.
    const json mx_group = {{"dynamic", true}, {"group_size", 32}};
    for (const auto& [inputs, scales] :
         {std::pair{args("float", 8, "token", dynamic), ScaleRule::kAbsMax},
          std::pair{args("float", 8, "group", mx_group), ScaleRule::kEvenPow2}}) {
        json config = config_of(args("float", 8, "channel"), inputs);
        config["format"] = "mxfp8-quantized";
        EXPECT_EQ(describe(config, t, 2, 4)->activation->scale_rule, scales) << inputs;
    }
}

TEST(CompressedTensorsFloat, StaticInputsNeedTheirScales) {
    const json weights = args("float", 8, "channel");
    const json fp8 = args("float", 8, "tensor"),
               fp4 = args("float", 4, "tensor_group", {{"dynamic", "local"}, {"group_size", 16}});
    json int8 = args("int", 8, "tensor");
    int8["symmetric"] = false;
    const std::string plain = "model.q_proj", expert = "model.mlp.experts.3.up_proj";
    for (const std::string& stem : {plain, expert}) {
        MemoryTensors t = fp8_tensors(stem);
        const auto rule = [&](const json& inputs) {
            std::optional<ActivationRule> found;
            const std::string why = refusal(
                [&] { found = describe(config_of(weights, inputs), t, 2, 4, stem)->activation; });
            return std::pair{found, why};
        };
        for (const char* suffix : {".input_scale", ".input_global_scale"}) {
            const json& inputs = suffix == std::string(".input_scale") ? fp8 : fp4;
            const auto [none, why] = rule(inputs);
            EXPECT_FALSE(none);
            EXPECT_EQ(why.find(stem + suffix) != std::string::npos, stem == plain) << why;
            t.all[stem + suffix] = test::tensor("F32", {1}, std::vector<float>{0.25f});
            EXPECT_EQ(rule(inputs).first->scale, 0.25f);
            for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(),
                                    std::numeric_limits<float>::infinity()}) {
                t.all[stem + suffix] = test::tensor("F32", {1}, std::vector<float>{bad});
                EXPECT_EQ(rule(inputs).second.empty(), stem == expert) << bad;
                EXPECT_FALSE(rule(inputs).first);
            }
            t.all[stem + suffix] = test::tensor("F32", {2}, std::vector<float>{1, 2});
            EXPECT_NE(rule(inputs).second, "");
            t.all[stem + suffix] = test::tensor("BF16", {1}, std::vector<uint16_t>{0x3f80});
        }
        EXPECT_NE(rule(int8).second.find("input_zero_point"), std::string::npos);
        t.all[stem + ".input_zero_point"] = test::tensor("I8", {1}, std::vector<int8_t>{-7});
        EXPECT_EQ(rule(int8).first->zero, -7);
        EXPECT_EQ(rule(int8).first->scale, 1);
        t.all[stem + ".input_zero_point"] = test::tensor("I32", {1}, std::vector<int32_t>{300});
        EXPECT_NE(rule(int8).second.find("input_zero_point"), std::string::npos);
        t.all[stem + ".input_zero_point"] = test::tensor("F32", {1}, std::vector<float>{0.5f});
        EXPECT_NE(rule(int8).second.find("input_zero_point"), std::string::npos);
    }
}

TEST(CompressedTensorsFloat, Presets) {
    const auto with = [](const char* preset, const MemoryTensors& t) {
        return describe({{"config_groups", {{preset, {"Linear"}}}}}, t, 2, 4);
    };
    MemoryTensors t = fp8_tensors("m");
    EXPECT_EQ(with("FP8_DYNAMIC", t)->activation->scale_rule, ScaleRule::kAbsMax);
    t.all["m.weight_scale"] = test::tensor("F32", {1, 1}, std::vector<float>{1});
    EXPECT_EQ(with("FP8_BLOCK", t)->activation->group, 128);
    t.all["m.weight_scale"] = test::tensor("U8", {2, 1}, std::vector<uint8_t>(2, 127));
    EXPECT_EQ(with("MXFP8", t)->activation->scale_rule, ScaleRule::kEvenPow2);
    EXPECT_FALSE(with("MXFP8A16", t)->activation);
    t.all["m.weight_scale"] = test::tensor("F32", {1}, std::vector<float>{1});
    EXPECT_NE(refusal([&] { with("FP8", t); }).find("m.input_scale"), std::string::npos);
    t.all["m.input_scale"] = t.all["m.weight_scale"];
    EXPECT_EQ(with("FP8", t)->activation->scale_rule, ScaleRule::kStatic);
    MemoryTensors four;
    four.all["m.weight_packed"] = test::tensor("U8", {2, 2}, std::vector<uint8_t>(4));
    four.all["m.weight_scale"] = test::tensor("U8", {2, 1}, std::vector<uint8_t>(2, 127));
    EXPECT_EQ(with("mxfp4", four)->activation->top, 2);
    EXPECT_FALSE(with("MXFP4A16", four)->activation);
    EXPECT_NE(refusal([&] { with("NVFP4A16", four); }).find("m.weight_scale"), std::string::npos);
    four.all["m.weight_scale"] = test::tensor("F8_E4M3", {2, 1}, std::vector<uint8_t>(2, 56));
    four.all["m.weight_global_scale"] = four.all["m.input_global_scale"] =
        test::tensor("F32", {1}, std::vector<float>{2});
    EXPECT_FALSE(with("NVFP4A16", four)->activation);
    EXPECT_EQ(with("NVFP4", four)->activation->scale_rule, ScaleRule::kE4M3Over);
    EXPECT_NE(refusal([&] { with("MXFP4", four); }).find("m.weight_scale"), std::string::npos);
    MemoryTensors int4;
    int4.all["m.weight_packed"] = test::tensor("I32", {2, 1}, std::vector<int32_t>(2));
    int4.all["m.weight_scale"] = test::tensor("F32", {2, 1}, std::vector<float>(2));
    EXPECT_EQ(with("W4A8", int4)->activation->code, ActivationCode::kInt8);
    EXPECT_EQ(with("W4AFP8", int4)->activation->code, ActivationCode::kE4M3);
    EXPECT_FALSE(with("W4A16", int4)->activation);
    EXPECT_NE(refusal([&] { with("W4A4", int4); }).find("4 bits"), std::string::npos);
    EXPECT_NE(refusal([&] { with("FP8", int4); }).find("m.weight_packed"), std::string::npos);
}

TEST(CompressedTensorsFloat, RefusedWithTheirNames) {
    const MemoryTensors t = fp8_tensors("m");
    const auto why = [&](const json& weights, const json& inputs = nullptr) {
        return refusal([&] { describe(config_of(weights, inputs), t, 2, 4); });
    };
    EXPECT_EQ(why(args("float", 8, "channel")), "");
    EXPECT_NE(why(args("int", 8, "channel")).find("m.weight"), std::string::npos);
    EXPECT_NE(why(args("float", 4, "group", {{"group_size", 32}})).find("m.weight"),
              std::string::npos);
    EXPECT_NE(why(args("float", 8, "channel", {{"symmetric", false}})).find("zero points"),
              std::string::npos);
    EXPECT_NE(why(args("float", 8, "token")).find("token"), std::string::npos);
    for (const json& block :
         std::vector<json>{"", "128", "x", "128x", "0x0", "-1x4", "1x2x3", 128, json::array(),
                           json{0, 128}, json{128, "x"}, "99999999999999999999x1"})
        EXPECT_NE(why(args("float", 8, "block", {{"block_structure", block}})), "") << block;
    const json weights = args("float", 8, "channel");
    for (const json& inputs : std::vector<json>{
             args("int", 4, "token", {{"dynamic", true}}), args("float", 8, "channel"),
             args("float", 4, "token", {{"dynamic", true}}),
             args("float", 8, "token", {{"dynamic", true}, {"symmetric", false}}),
             args("float", 8, "token", {{"dynamic", "local"}})})
        EXPECT_NE(why(weights, inputs).find("input_activations"), std::string::npos) << inputs;
    for (const int group : {-1, 8, 32, 128}) {
        const std::string found = why(weights, args("float", 4, "tensor_group",
                                                    {{"dynamic", "local"}, {"group_size", group}}));
        EXPECT_NE(found.find("tensor_group"), std::string::npos) << found;
        EXPECT_NE(found.find("'group_size' of " + std::to_string(group)), std::string::npos);
    }
}

TEST(CompressedTensorsFloat, GroupsOfATensorGroupAreSixteen) {
    MemoryTensors t = fp8_tensors("m");
    t.all["m.input_global_scale"] = test::tensor("F32", {1}, std::vector<float>{3});
    for (const json& more :
         std::vector<json>{{{"dynamic", "local"}}, {{"dynamic", "local"}, {"group_size", 16}}}) {
        const auto m =
            describe(config_of(args("float", 8, "channel"), args("float", 4, "tensor_group", more)),
                     t, 2, 4);
        ASSERT_TRUE(m && m->activation) << more;
        EXPECT_EQ(m->activation->group, 16);
    }
}

}  // namespace
}  // namespace conclave::quant
