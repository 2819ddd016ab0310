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

std::unique_ptr<QuantizationConfig> make(const json& config) {
    return deepspeedfp_format().from_config(config, "the-file");
}

/// The rule in decimal arithmetic: every code's number is tried.
std::vector<float> expected(const std::vector<float>& w, int bits, int64_t group) {
    const int mantissa = bits == 8 ? 3 : 2, bias = bits == 8 ? 7 : 3, most = bits == 8 ? 15 : 7;
    const float top = bits == 8 ? 480.0f : 28.0f;
    std::vector<float> numbers;
    for (int e = 1; e <= most; ++e)
        for (int f = 0; f < 1 << mantissa; ++f)
            numbers.push_back(
                std::ldexp(1 + std::ldexp(static_cast<float>(f), -mantissa), e - bias));
    std::vector<float> out;
    for (size_t begin = 0; begin < w.size(); begin += static_cast<size_t>(group)) {
        const size_t end = std::min(w.size(), begin + static_cast<size_t>(group));
        float amax = 0;
        for (size_t i = begin; i < end; ++i) amax = std::max(amax, std::fabs(w[i]));
        const float scale = amax / top, inverse = top / amax;
        for (size_t i = begin; i < end; ++i) {
            float best = 0;
            const float v = std::fabs(w[i]) * inverse;
            // Nearest, the larger one of two.
            if (w[i] != 0) {
                best = numbers[0];
                for (const float number : numbers)
                    if (std::fabs(double{v} - number) <= std::fabs(double{v} - best)) best = number;
            }
            out.push_back(std::copysign(best, w[i]) * scale);
        }
    }
    return out;
}

struct Sample {
    MemoryTensors tensors;
    std::vector<float> weights;
};

Sample make_sample(const std::string& type, std::vector<int64_t> shape, std::mt19937& rng) {
    int64_t count = 1;
    for (const int64_t axis : shape) count *= axis;
    Sample s;
    std::vector<uint16_t> halves;
    for (int64_t i = 0; i < count; ++i) {
        float v =
            std::ldexp(static_cast<float>(rng() % 2001) - 1000, -static_cast<int>(rng() % 18));
        if (rng() % 20 == 0) v = rng() % 2 ? 0.0f : -0.0f;
        const uint16_t half = type == "F16" ? f32_to_f16(v) : f32_to_bf16(v);
        if (type == "F16") v = f16_to_f32(half);
        if (type == "BF16") v = bf16_to_f32(half);
        halves.push_back(half);
        s.weights.push_back(v);
    }
    s.tensors.all[shape.size() == 3 ? "m" : "m.weight"] =
        type == "F32" ? test::tensor(type, shape, s.weights) : test::tensor(type, shape, halves);
    return s;
}

TEST(DeepSpeedFp, AnyCutDecodesAsTheWholeWeight) {
    std::mt19937 rng(1);
    for (int i = 0; i < 120; ++i) {
        const int bits = rng() % 2 ? 8 : 6;
        const int64_t group = std::array{1, 8, 48, 64, 100, 128, 512, 65536}[rng() % 8];
        const int64_t n = 1 + static_cast<int64_t>(rng() % 40),
                      k = 1 + static_cast<int64_t>(rng() % 260);
        const std::string type = std::array{"BF16", "F16", "F32"}[rng() % 3];
        const int64_t lead = rng() % 3 ? -1 : static_cast<int64_t>(rng() % 3);
        const Sample s = make_sample(
            type, lead < 0 ? std::vector<int64_t>{n, k} : std::vector<int64_t>{3, n, k}, rng);
        const auto all = expected(s.weights, bits, group);
        MatrixSource source = test::matrix_source("m", n, k);
        const Interval rows = test::random_cut(n, rng);
        source.n = rows.size(), source.row_offset = rows.begin;
        if (lead >= 0) source.bare = true, source.lead = lead, source.lead_count = 3;
        const auto m = make({{"bits", bits}, {"group_size", group}})->describe(source, s.tensors);
        ASSERT_TRUE(m);
        EXPECT_EQ(m->encoding.bits, bits);
        EXPECT_FALSE(m->activation);
        const int64_t first = (std::max<int64_t>(lead, 0) * n + rows.begin) * k;
        const std::vector<float> part(all.begin() + first, all.begin() + first + source.n * k);
        test::expect_cuts(*m, part, s.tensors.reader(*m), 4, rng);
    }
}

TEST(DeepSpeedFp, ZerosKeepTheirSignAndGroupsOfZerosAreZero) {
    std::mt19937 rng(2);
    MemoryTensors tensors;
    const std::vector<float> weights = {0.0f, -0.0f, 480, -1e-30f, 0.0f, -0.0f, 0.0f, 0.0f};
    tensors.all["m.weight"] = test::tensor("F32", {2, 4}, weights);
    const auto m =
        make({{"bits", 8}, {"group_size", 4}})->describe(test::matrix_source("m", 2, 4), tensors);
    const auto values = test::decode_rows(*m, {0, 2}, {0, 4}, tensors.reader(*m), rng);
    const std::vector<float> want = {0.0f, -0.0f, 480, -0x1p-6f, 0.0f, -0.0f, 0.0f, 0.0f};
    for (size_t i = 0; i < want.size(); ++i) {
        EXPECT_EQ(values[i], want[i]) << i;
        EXPECT_EQ(std::signbit(values[i]), std::signbit(want[i])) << i;
    }
}

TEST(DeepSpeedFp, WeightsThatAreNoNumbers) {
    std::mt19937 rng(3);
    for (const float odd :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        MemoryTensors tensors;
        tensors.all["m.weight"] =
            test::tensor("F32", {1, 8}, std::vector<float>{1, odd, 3, 4, 5, 6, 7, 8});
        const auto m = make({{"bits", 6}, {"group_size", 4}})
                           ->describe(test::matrix_source("m", 1, 8), tensors);
        const auto read = tensors.reader(*m);
        EXPECT_NO_THROW(test::decode_cut(*m, {0, 1}, {4, 8}, read, rng));
        try {
            test::decode_cut(*m, {0, 1}, {3, 8}, read, rng);
            FAIL() << "nothing thrown";
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kBadContent);
            EXPECT_NE(std::string(e.what()).find("m.weight"), std::string::npos) << e.what();
        }
    }
}

TEST(DeepSpeedFp, WhatStaysPlain) {
    const auto format = make({{"bits", 8}});
    for (const char* stem :
         {"lm_head", "model.embed_tokens", "model.layers.0.mlp.gate", "model.layers.0.mlp.router",
          "model.layers.0.mlp.shared_expert_gate"}) {
        MemoryTensors tensors;
        tensors.all[std::string(stem) + ".weight"] =
            test::tensor("BF16", {2, 2}, std::vector<uint16_t>(4));
        const auto m = format->describe(test::matrix_source(stem, 2, 2), tensors);
        ASSERT_TRUE(m);
        EXPECT_EQ(m->encoding.code, CodeType::kBF16) << stem;
    }
    MemoryTensors tensors;
    tensors.all["model.layers.0.mlp.gate_proj.weight"] =
        test::tensor("BF16", {2, 2}, std::vector<uint16_t>(4));
    const auto m =
        format->describe(test::matrix_source("model.layers.0.mlp.gate_proj", 2, 2), tensors);
    EXPECT_EQ(m->encoding.code, CodeType::kE4M3N);
    EXPECT_FALSE(format->describe(test::matrix_source("absent", 2, 2), tensors));
}

TEST(DeepSpeedFp, HostileConfigsAndTensors) {
    const auto refused = [](const std::function<void()>& f) {
        try {
            f();
        } catch (const Error& e) {
            EXPECT_TRUE(e.code() == ErrorCode::kBadContent || e.code() == ErrorCode::kUnsupported);
            return std::string(e.what());
        }
        return std::string();
    };
    for (const json& config : std::vector<json>{json::object(),
                                                {{"bits", 4}},
                                                {{"bits", 12}},
                                                {{"bits", "8"}},
                                                {{"bits", 8.5}},
                                                {{"bits", 8}, {"group_size", 0}},
                                                {{"bits", 8}, {"group_size", -1}},
                                                {{"bits", 8}, {"group_size", 1e30}},
                                                {{"bits", 8}, {"group_size", INT64_MAX}},
                                                {{"bits", 8}, {"group_size", json::array()}}})
        EXPECT_NE(refused([&] { make(config); }).find("the-file"), std::string::npos) << config;
    const auto format = make({{"bits", 6}});
    MemoryTensors tensors;
    const auto describe = [&](const char* type, const std::vector<int64_t>& shape) {
        tensors.all["m.weight"] = test::tensor(type, shape, std::vector<uint16_t>(4));
        return refused([&] { format->describe(test::matrix_source("m", 2, 2), tensors); });
    };
    EXPECT_EQ(describe("BF16", {2, 2}), "");
    EXPECT_NE(describe("I8", {2, 2}).find("m.weight"), std::string::npos);
    EXPECT_NE(describe("F8_E4M3", {2, 2}).find("m.weight"), std::string::npos);
    EXPECT_NE(describe("BF16", {4}).find("m.weight"), std::string::npos);
    EXPECT_NE(describe("BF16", {2, INT64_MAX}).find("m.weight"), std::string::npos);
}

}  // namespace
}  // namespace conclave::quant
