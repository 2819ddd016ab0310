#include <gtest/gtest.h>

#include <numeric>

#include "quant/formats/formats.h"
#include "runtime/base/half.h"
#include "tests/quant/formats/memory_tensors.h"

namespace conclave::quant {
namespace {

using nlohmann::json;
using test::MemoryTensors;

std::string packing_name(int bits) {
    if (bits == 3) return "3bit_32";
    return (bits > 4 ? "8" : std::to_string(bits)) + "bit_u8";
}
int parts_of(int bits) { return bits == 3 ? 10 : bits > 4 ? 1 : 8 / bits; }

json config_of(int bits, const json& group) {
    return {{"quant_method", "hqq"},
            {"quant_config",
             {{"weight_quant_params", {{"nbits", bits}, {"group_size", group}, {"axis", 1}}},
              {"scale_quant_params", nullptr},
              {"zero_quant_params", nullptr}}}};
}

struct Sample {
    MemoryTensors tensors;
    std::vector<float> values;  ///< [n, k]
    std::unique_ptr<QuantizationConfig> config;
};

/// HQQ's own steps: codes [groups, g], cut into equal parts, one code of each in an element.
Sample make_sample(int64_t n, int64_t k, int bits, int64_t g, std::mt19937& rng) {
    Sample s;
    const int64_t groups = n * k / g, parts = parts_of(bits);
    std::vector<uint32_t> codes(static_cast<size_t>(n * k));
    for (uint32_t& c : codes) c = rng() % (1u << bits);
    std::vector<uint16_t> scale, zero;
    for (int64_t r = 0; r < groups; ++r) {
        scale.push_back(f32_to_bf16((rng() % 2 ? 0.01f : -0.01f) * static_cast<float>(rng() % 99)));
        zero.push_back(f32_to_bf16(static_cast<float>(rng() % 1000) * 0.02f));
    }
    for (int64_t i = 0; i < n * k; ++i) {
        const auto r = static_cast<size_t>(i / g);
        s.values.push_back(
            (static_cast<float>(codes[static_cast<size_t>(i)]) - bf16_to_f32(zero[r])) *
                bf16_to_f32(scale[r]) +
            0.0f);
    }
    const int64_t step = (groups + parts - 1) / parts;
    std::vector<uint32_t> packed(static_cast<size_t>(step * g));
    for (size_t i = 0; i < packed.size(); ++i)
        for (int64_t p = 0; p < parts; ++p) {
            const size_t from = i + static_cast<size_t>(p) * packed.size();
            // What pads the last part is anything.
            const uint32_t code = from < codes.size() ? codes[from] : rng() % (1u << bits);
            packed[i] |= code << (bits == 3 ? 27 - 3 * p : (parts - 1 - p) * (8 / parts));
        }
    if (bits == 3)
        s.tensors.all["m.W_q"] = test::tensor("I32", {step, g}, packed);
    else
        s.tensors.all["m.W_q"] =
            test::tensor("U8", {step, g}, std::vector<uint8_t>(packed.begin(), packed.end()));
    s.tensors.all["m.scale"] = test::tensor("BF16", {groups, 1}, scale);
    s.tensors.all["m.zero"] = test::tensor("BF16", {groups, 1}, zero);
    s.tensors.all["m.nbits"] = test::tensor("I32", {}, std::vector<int32_t>{bits});
    s.tensors.all["m.group_size"] =
        test::tensor("I32", {}, std::vector<int32_t>{static_cast<int32_t>(g)});
    s.tensors.all["m.axis"] = test::tensor("I32", {}, std::vector<int32_t>{1});
    s.tensors.all["m.shape"] = test::tensor("I64", {2}, std::vector<int64_t>{n, k});
    const std::string name = packing_name(bits);
    s.tensors.all["m.packing"] = test::tensor("U8", {static_cast<int64_t>(name.size())},
                                              std::vector<uint8_t>(name.begin(), name.end()));
    for (const char* flag : {"view_as_float", "quant_scale", "quant_zero"})
        s.tensors.all[std::string("m.") + flag] = test::tensor("U8", {}, std::vector<uint8_t>{0});
    s.config = hqq_format().from_config(config_of(bits, g), "f");
    return s;
}

TEST(Hqq, AnyCutDecodesAlike) {
    std::mt19937 rng(1);
    int ragged = 0, split_rows = 0;
    for (int i = 0; i < 150; ++i) {
        const int bits = std::array{1, 2, 3, 4, 5, 6, 8}[rng() % 7];
        const int64_t g = std::array<int64_t, 6>{8, 12, 16, 32, 64, 128}[rng() % 6];
        int64_t n = 1 + static_cast<int64_t>(rng() % 70);
        const int64_t k = 1 + static_cast<int64_t>(rng() % 150);
        const int64_t unit = std::lcm(g * (bits == 3 ? 1 : parts_of(bits)), k) / k;
        n = (n + unit - 1) / unit * unit;
        const Sample s = make_sample(n, k, bits, g, rng);
        MatrixSource source = test::matrix_source("m", n, k);
        std::vector<float> values = s.values;
        if (rng() % 2) {
            source.stored_n = n;
            const Interval rows = test::random_cut(n, rng);
            source.n = rows.size(), source.row_offset = rows.begin;
            values.assign(s.values.begin() + rows.begin * k, s.values.begin() + rows.end * k);
        }
        const auto m = s.config->describe(source, s.tensors);
        ASSERT_TRUE(m);
        ragged += k % g != 0;
        split_rows += m->pieces[0].cols == 1;
        EXPECT_EQ(m->encoding.code, bits <= 4 ? CodeType::kU4 : CodeType::kU8);
        EXPECT_EQ(k % std::max<int64_t>(m->encoding.group, 1), 0);
        test::expect_cuts(*m, values, s.tensors.reader(*m), 6, rng);
    }
    EXPECT_GT(ragged, 20);
    EXPECT_GT(split_rows, 5);
}

TEST(Hqq, PartsAreReadOnce) {
    std::mt19937 rng(2);
    const Sample s = make_sample(64, 96, 4, 32, rng);
    const auto m = s.config->describe(test::matrix_source("m", 64, 96), s.tensors);
    const auto needs = [&](Interval n, Interval k) {
        return std::pair{m->codec->needs(*m, 0, n, k), m->codec->needs(*m, 1, n, k)};
    };
    // Rows 0 to 31 are the high halves of W_q's rows, 32 to 63 the low ones.
    const auto [whole, none] = needs({0, 64}, {5, 90});
    EXPECT_EQ(whole.rows, (Interval{0, 32}));
    EXPECT_EQ(whole.cols, (Interval{5, 90}));
    EXPECT_TRUE(none.rows.empty());
    const auto [low, high] = needs({30, 35}, {0, 96});
    EXPECT_EQ(low.rows, (Interval{0, 3}));
    EXPECT_EQ(high.rows, (Interval{30, 32}));
    EXPECT_EQ(needs({40, 42}, {0, 96}).first.rows, (Interval{8, 10}));
    EXPECT_EQ(m->codec->rows_per_read(*m), 64);
}

TEST(Hqq, SettingsOfOneLayerAndNone) {
    std::mt19937 rng(3);
    Sample s = make_sample(16, 32, 4, 16, rng);
    const auto source = test::matrix_source("m", 16, 32);
    const json layer = {{"weight_quant_params", {{"nbits", 4}, {"group_size", 16}}}};
    const json tagged = {{"quant_config", {{"m", layer}, {"other", {{"n", 1}}}}}};
    const json empty = {{"quant_config", json::object()}};
    for (const json& config : {tagged, empty}) {
        const auto format = hqq_format().from_config(config, "f");
        const auto m = format->describe(source, s.tensors);
        ASSERT_TRUE(m);
        test::expect_cuts(*m, s.values, s.tensors.reader(*m), 4, rng);
    }
    for (const char* setting : {"m.nbits", "m.group_size", "m.shape", "m.packing", "m.axis"})
        s.tensors.all.erase(setting);
    EXPECT_TRUE(hqq_format().from_config(tagged, "f")->describe(source, s.tensors));
    EXPECT_THROW(hqq_format().from_config(empty, "f")->describe(source, s.tensors), Error);
    // "group_size": null is a whole row.
    Sample row = make_sample(16, 32, 4, 32, rng);
    const auto m =
        hqq_format().from_config(config_of(4, nullptr), "f")->describe(source, row.tensors);
    ASSERT_TRUE(m);
    EXPECT_EQ(m->encoding.group, 0);
    EXPECT_FALSE(s.config->describe(test::matrix_source("x", 1, 1), s.tensors));
}

TEST(Hqq, HostileTensors) {
    std::mt19937 rng(4);
    const auto source = test::matrix_source("m", 16, 96);
    const Sample good = make_sample(16, 96, 4, 64, rng);
    ASSERT_TRUE(good.config->describe(source, good.tensors));
    const auto refused = [&](const MemoryTensors& tensors, const std::string& name) {
        try {
            good.config->describe(source, tensors);
        } catch (const Error& e) {
            EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
            return true;
        }
        return false;
    };
    for (const auto& [name, unused] : good.tensors.all) {
        (void)unused;
        const bool needed = name == "m.scale" || name == "m.zero";
        MemoryTensors bad = good.tensors;
        bad.all.erase(name);
        EXPECT_EQ(refused(bad, name), needed) << name;
        bad = good.tensors;
        bad.all[name].header.dtype = "F64";
        EXPECT_TRUE(refused(bad, name)) << name;
        for (const std::vector<int64_t>& shape : {std::vector<int64_t>{3, 3},
                                                  {},
                                                  {0},
                                                  {-1, -1},
                                                  {int64_t{1} << 62, 4},
                                                  {1, 1, 1, 1},
                                                  {INT64_MAX, INT64_MAX}}) {
            bad = good.tensors;
            bad.all[name].header.shape = shape;
            const int64_t scalars = name == "m.shape" || name == "m.packing" ? 0 : 1;
            const bool one = shape.empty() || shape == std::vector<int64_t>{1, 1, 1, 1};
            const bool scalar = good.tensors.all.at(name).header.shape.empty();
            if ((scalar && one && scalars) || name == "m.packing") continue;
            EXPECT_TRUE(refused(bad, name)) << name << " " << shape.size();
        }
    }
    const auto with = [&](const std::string& name, std::vector<int64_t> values) {
        MemoryTensors bad = good.tensors;
        const auto shape = bad.all[name].header.shape;
        bad.all[name] = test::tensor("I64", shape, values);
        return refused(bad, name);
    };
    for (const int64_t v :
         {INT64_MIN, int64_t{-1}, int64_t{0}, int64_t{3}, int64_t{7}, INT64_MAX}) {
        EXPECT_TRUE(with("m.nbits", {v})) << v;
        EXPECT_TRUE(with("m.group_size", {v})) << v;
        EXPECT_TRUE(with("m.axis", {v})) << v;
        EXPECT_TRUE(with("m.shape", {v, 96})) << v;
        EXPECT_TRUE(with("m.shape", {16, v})) << v;
        EXPECT_EQ(with("m.quant_scale", {v}), v != 0) << v;
        EXPECT_EQ(with("m.view_as_float", {v}), v != 0) << v;
    }
}

TEST(Hqq, HostileConfigs) {
    const auto from = [](const json& config) -> std::string {
        try {
            hqq_format().from_config(config, "the-file");
        } catch (const Error& e) {
            return e.what();
        }
        return "";
    };
    EXPECT_EQ(from(config_of(4, 64)), "");
    for (const char* text :
         {"[]", "{}", R"({"quant_config": 3})", R"({"quant_config": {"weight_quant_params": []}})",
          R"({"quant_config": {"weight_quant_params": {}}})",
          R"({"quant_config": {"weight_quant_params": {"nbits": 1.58}}})",
          R"({"quant_config": {"weight_quant_params": {"nbits": 0}}})",
          R"({"quant_config": {"weight_quant_params": {"nbits": 4, "group_size": -1}}})",
          R"({"quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 1e300}}})",
          R"({"quant_config": {"weight_quant_params": {"nbits": 4, "axis": 0}}})",
          R"({"quant_config": {"weight_quant_params": {"nbits": 4, "view_as_float": true}}})",
          R"({"quant_config": {"weight_quant_params": {"nbits": 4}, "scale_quant_params": {}}})",
          R"({"quant_config": {"weight_quant_params": {"nbits": 4}, "zero_quant_params": {}}})"})
        EXPECT_NE(from(json::parse(text)).find("the-file"), std::string::npos) << text;
}

TEST(Hqq, ImaginedWeightsAreOfUnitScale) {
    std::mt19937 rng(5);
    const auto config = hqq_format().from_config(config_of(4, 64), "f");
    for (const int bits : {1, 3, 4, 8}) {
        const Encoding e{bits <= 4 ? CodeType::kU4 : CodeType::kU8,
                         bits,
                         FactorType::kBF16,
                         FactorType::kF16,
                         0,
                         64,
                         false};
        const StoredMatrix m = imagine(*config, test::matrix_source("m", 64, 256), e);
        EXPECT_EQ(m.encoding, e);
        const test::ReadRect generate = [&](size_t piece, const StoredRect& rect, std::byte* out,
                                            int64_t row_bytes) {
            for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r)
                m.codec->generate(m, piece, {{r, r + 1}, rect.cols},
                                  out + (r - rect.rows.begin) * row_bytes);
        };
        const auto values = test::decode_rows(m, {0, 64}, {0, 256}, generate, rng);
        double square = 0;
        for (const float v : values) square += double{v} * v;
        EXPECT_NEAR(square / 64, 1, 0.1) << bits;
        test::expect_cuts(m, values, generate, 5, rng);
    }
}

}  // namespace
}  // namespace conclave::quant
