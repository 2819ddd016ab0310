#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <set>

#include "quant/formats/formats.h"
#include "runtime/base/half.h"
#include "tests/quant/formats/memory_tensors.h"

namespace conclave::quant {
namespace {

using nlohmann::json;
using test::MemoryTensors;

json dtype(const char* name) { return {{"_type", "torch.dtype"}, {"_data", name}}; }

json inputs_of(const char* type, json data) {
    data["granularity"] = {{"_type", "PerRow"}, {"_data", {{"dim", -1}}}};
    return {{"_type", type}, {"_data", data}};
}

/// A weight "m.weight" of random codes, and its numbers.
struct Sample {
    json text;
    MemoryTensors tensors;
    std::vector<float> values;
    int64_t n = 0, k = 0;

    std::optional<StoredMatrix> describe(const json& said) const {
        MemoryTensors shown = tensors;
        shown.texts["m.weight"] = said.dump();
        return torchao_format()
            .from_config(json::object(), "the-file")
            ->describe(test::matrix_source("m", n, k), shown);
    }
};

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

int8_t random_code(int bits, std::mt19937& rng) {
    const int half = 1 << (bits - 1);
    return static_cast<int8_t>(static_cast<int>(rng() % (2u * half)) - half);
}

/// Bytes of `bits`, blocks of rows x columns, with zeros or not.
Sample byte_sample(int64_t n, int64_t k, int bits, int64_t rows, int64_t columns, bool zeros,
                   std::mt19937& rng) {
    Sample s;
    s.n = n, s.k = k;
    s.text = {{"_type", "IntxUnpackedToInt8Tensor"},
              {"_data",
               {{"target_dtype", dtype(("int" + std::to_string(bits)).c_str())},
                {"block_size", {rows, columns}},
                {"dtype", dtype("bfloat16")},
                {"activation_quantization", nullptr}}},
              {"_tensor_data_names", {"qdata", "scale", "zero_point"}}};
    const int64_t grid_rows = n / rows, groups = k / columns;
    std::vector<int8_t> codes(static_cast<size_t>(n * k)), points;
    for (int8_t& q : codes) q = random_code(bits, rng);
    std::vector<float> scales;
    for (int64_t i = 0; i < grid_rows * groups; ++i) {
        scales.push_back(0.01f * (1 + static_cast<float>(rng() % 99)));
        points.push_back(zeros ? random_code(bits, rng) : int8_t{0});
    }
    for (int64_t r = 0; r < n; ++r)
        for (int64_t c = 0; c < k; ++c) {
            const auto g = static_cast<size_t>(r / rows * groups + c / columns);
            s.values.push_back(
                static_cast<float>(codes[static_cast<size_t>(r * k + c)] - points[g]) * scales[g]);
        }
    s.tensors.all["m._weight_qdata"] = test::tensor("I8", {n, k}, codes);
    s.tensors.all["m._weight_scale"] = test::tensor("F32", {grid_rows, groups}, scales);
    s.tensors.all["m._weight_zero_point"] = test::tensor("I8", {grid_rows, groups}, points);
    return s;
}

Sample int4_sample(int64_t n, int64_t k, int64_t group, std::mt19937& rng) {
    Sample s;
    s.n = n, s.k = k;
    s.text = {
        {"_type", "Int4Tensor"},
        {"_data",
         {{"activation_dtype", dtype("bfloat16")}, {"block_size", {1, group}}, {"shape", {n, k}}}},
        {"_tensor_data_names", {"qdata", "scale", "zero_point"}}};
    std::vector<uint8_t> bytes(static_cast<size_t>(n * k / 2));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
    std::vector<uint16_t> scales, zeros;
    for (int64_t i = 0; i < n * k / group; ++i) {
        scales.push_back(f32_to_bf16(0.01f * static_cast<float>(rng() % 99)));
        zeros.push_back(f32_to_bf16(0.1f * (static_cast<float>(rng() % 99) - 50)));
    }
    for (int64_t r = 0; r < n; ++r)
        for (int64_t c = 0; c < k; ++c) {
            const int nibble = bytes[static_cast<size_t>((r * k + c) / 2)] >> (c % 2 * 4) & 15;
            const auto g = static_cast<size_t>(c / group * n + r);
            s.values.push_back(static_cast<float>(nibble < 8 ? nibble : nibble - 16) *
                                   bf16_to_f32(scales[g]) +
                               bf16_to_f32(zeros[g]));
        }
    s.tensors.all["m._weight_qdata"] = test::tensor("I8", {n, k / 2}, bytes);
    s.tensors.all["m._weight_scale"] = test::tensor("BF16", {k / group, n}, scales);
    s.tensors.all["m._weight_zero_point"] = test::tensor("BF16", {k / group, n}, zeros);
    return s;
}

void expect_decodes(const Sample& s, std::mt19937& rng) {
    const auto m = s.describe(s.text);
    ASSERT_TRUE(m);
    test::expect_cuts(*m, s.values, s.tensors.reader(*m), 4, rng);
    std::set<std::string> known(m->companions.begin(), m->companions.end());
    for (const StoredPiece& p : m->pieces) known.insert(p.tensor);
    EXPECT_EQ(known.size(), s.tensors.all.size());
}

TEST(Torchao, AnyCutDecodesAlike) {
    std::mt19937 rng(1);
    for (int i = 0; i < 60; ++i) {
        const int64_t group = std::array{8, 24, 32, 64}[rng() % 4];
        const int64_t n = 1 + static_cast<int64_t>(rng() % 50);
        const int64_t k = group * (1 + static_cast<int64_t>(rng() % 4));
        const int bits = 1 + static_cast<int>(rng() % 8);
        expect_decodes(byte_sample(n, k, bits, 1, rng() % 2 ? k : group, rng() % 2, rng), rng);
        expect_decodes(byte_sample(n, k, 8, n, k, rng() % 2, rng), rng);
        expect_decodes(int4_sample(n, k, group, rng), rng);
    }
}

TEST(Torchao, ZerosOfNothingAreNotKept) {
    std::mt19937 rng(2);
    const Sample none = byte_sample(8, 32, 8, 1, 32, false, rng);
    EXPECT_EQ(none.describe(none.text)->encoding.zero, FactorType::kNone);
    EXPECT_EQ(none.describe(none.text)->encoding.zero_point, 128);
    const Sample some = byte_sample(8, 32, 8, 1, 32, true, rng);
    EXPECT_EQ(some.describe(some.text)->encoding.zero, FactorType::kU8);
}

TEST(Torchao, RulesOfInputs) {
    std::mt19937 rng(3);
    Sample s = byte_sample(8, 32, 8, 1, 32, false, rng);
    s.text["_type"] = "Int8Tensor";
    EXPECT_FALSE(s.describe(s.text)->activation);
    json& inputs = s.text["_data"]["act_quant_kwargs"];
    inputs = inputs_of("QuantizeTensorToInt8Kwargs",
                       {{"mapping_type", {{"_type", "MappingType"}, {"_data", "SYMMETRIC"}}},
                        {"reduce_range", false}});
    const auto rule = s.describe(s.text)->activation;
    ASSERT_TRUE(rule);
    EXPECT_EQ(*rule, (ActivationRule{.code = ActivationCode::kInt8,
                                     .scale_rule = ScaleRule::kAbsMax,
                                     .top = 127.5f,
                                     .least = std::numeric_limits<float>::epsilon(),
                                     .reciprocal = true}));
    const auto refused = [&](const char* path, const json& value) {
        json text = s.text;
        text["_data"]["act_quant_kwargs"][json::json_pointer(path)] = value;
        return refusal([&] { s.describe(text); });
    };
    EXPECT_NE(refused("/_data/mapping_type/_data", "ASYMMETRIC").find("ASYMMETRIC"),
              std::string::npos);
    EXPECT_NE(refused("/_data/reduce_range", true).find("reduce_range"), std::string::npos);
    EXPECT_NE(refused("/_data/granularity/_type", "PerGroup").find("PerGroup"), std::string::npos);
    json whole = s.text;
    whole["_data"]["act_quant_kwargs"]["_data"]["granularity"] = {{"_type", "PerTensor"},
                                                                  {"_data", json::object()}};
    EXPECT_EQ(s.describe(whole)->activation, rule);
    EXPECT_NE(refused("/_data/granularity/_data/dim", 0).find("axis 0"), std::string::npos);
    EXPECT_NE(refused("/_type", "Other").find("Other"), std::string::npos);
}

TEST(Torchao, ColumnsThatAreScaledFirst) {
    std::mt19937 rng(4);
    Sample s = int4_sample(4, 64, 32, rng);
    std::vector<float> columns;
    for (int c = 0; c < 64; ++c) columns.push_back(1 + static_cast<float>(c));
    s.tensors.all["m._weight_act_pre_scale"] = test::tensor("F32", {64}, columns);
    s.text["_tensor_data_names"].push_back("act_pre_scale");
    const auto m = s.describe(s.text);
    ASSERT_TRUE(m && m->column_scale);
    EXPECT_EQ(*m->column_scale, columns);
    EXPECT_EQ(m->companions, std::vector<std::string>{"m._weight_act_pre_scale"});
    columns[5] = std::numeric_limits<float>::quiet_NaN();
    s.tensors.all["m._weight_act_pre_scale"] = test::tensor("F32", {64}, columns);
    EXPECT_NE(refusal([&] { s.describe(s.text); }).find("act_pre_scale"), std::string::npos);
}

TEST(Torchao, RefusedByName) {
    std::mt19937 rng(5);
    const Sample s = byte_sample(8, 32, 4, 1, 32, false, rng);
    for (const char* type : {"Int4TilePackedTo4dTensor", "Int4PlainInt32Tensor", "MXTensor",
                             "NVFP4Tensor", "AffineQuantizedTensor"}) {
        json text = s.text;
        text["_type"] = type;
        EXPECT_NE(refusal([&] { s.describe(text); }).find(type), std::string::npos) << type;
    }
    json text = s.text;
    text["_data"]["activation_quantization"] = "int8_asym_per_token";
    EXPECT_NE(refusal([&] { s.describe(text); }).find("int8_asym_per_token"), std::string::npos);
    text = s.text;
    text["_tensor_data_names"].push_back("act_quant_scale");
    EXPECT_NE(refusal([&] { s.describe(text); }).find("act_quant_scale"), std::string::npos);
    const auto unnamed = refusal([&] {
        torchao_format()
            .from_config(json::object(), "the-file")
            ->describe(test::matrix_source("m", 8, 32), s.tensors);
    });
    EXPECT_NE(unnamed.find("m._weight_qdata"), std::string::npos) << unnamed;
}

TEST(Torchao, PlainWeights) {
    const auto format = torchao_format().from_config(json::object(), "the-file");
    MemoryTensors tensors;
    EXPECT_FALSE(format->describe(test::matrix_source("m", 2, 2), tensors));
    tensors.all["m.weight"] = test::tensor("BF16", {2, 2}, std::vector<uint16_t>(4));
    EXPECT_TRUE(format->describe(test::matrix_source("m", 2, 2), tensors));
    tensors.texts["m.weight"] = R"({"_type": "Tensor"})";
    EXPECT_TRUE(format->describe(test::matrix_source("m", 2, 2), tensors));
}

TEST(Torchao, HostileMetadata) {
    std::mt19937 rng(6);
    const std::vector<json> damages = {nullptr,
                                       true,
                                       -1,
                                       0,
                                       1,
                                       7,
                                       1e30,
                                       18446744073709551615u,
                                       INT64_MIN,
                                       "",
                                       "int9",
                                       json::array(),
                                       json::object(),
                                       json::array({1}),
                                       json::array({0, 0}),
                                       json::array({-1, 32}),
                                       json::array({1, INT64_MAX})};
    int served = 0, refused = 0;
    Sample bytes = byte_sample(8, 64, 4, 1, 32, true, rng);
    Sample int8 = byte_sample(8, 64, 8, 1, 32, false, rng);
    int8.text["_type"] = "Int8Tensor";
    int8.text["_data"]["act_quant_kwargs"] =
        inputs_of("QuantizeTensorToInt8Kwargs", {{"mapping_type", {{"_data", "SYMMETRIC"}}}});
    for (const Sample& s : {bytes, int8, int4_sample(8, 64, 32, rng)}) {
        const json flat = s.text.flatten();
        for (const auto& [path, leaf] : flat.items()) {
            (void)leaf;
            for (json::json_pointer p(path);; p = p.parent_pointer()) {
                for (const json& d : damages) {
                    json bad = s.text;
                    bad[p] = d;
                    std::optional<StoredMatrix> m;
                    const std::string why = refusal([&] { m = s.describe(bad); });
                    EXPECT_LT(why.size(), 600u);
                    EXPECT_NE(m.has_value(), !why.empty()) << bad;
                    m ? ++served : ++refused;
                    if (m) (void)test::decode_cut(*m, {1, 7}, {3, 61}, s.tensors.reader(*m), rng);
                }
                if (p.empty()) break;
            }
        }
        for (const char* text : {"", "{", "[]", "3", "\"Int8Tensor\"", "{\"_type\": 3}", "\xff",
                                 "{\"_type\":\"Int8Tensor\"}", "{\"_type\":\"Float8Tensor\"}"}) {
            MemoryTensors shown = s.tensors;
            shown.texts["m.weight"] = text;
            EXPECT_NE(refusal([&] {
                          torchao_format()
                              .from_config(json::object(), "the-file")
                              ->describe(test::matrix_source("m", 8, 64), shown);
                      }),
                      "")
                << text;
        }
        MemoryTensors shown = s.tensors;
        shown.texts["m.weight"] = std::string(100000, '[');
        EXPECT_NE(refusal([&] {
                      torchao_format()
                          .from_config(json::object(), "the-file")
                          ->describe(test::matrix_source("m", 8, 64), shown);
                  }),
                  "");
    }
    EXPECT_GT(served, 50);
    EXPECT_GT(refused, 300);
}

TEST(Torchao, HostileTensors) {
    std::mt19937 rng(7);
    for (const Sample& s : {byte_sample(8, 64, 4, 1, 32, true, rng), int4_sample(8, 64, 32, rng)})
        for (const auto& [name, good] : s.tensors.all) {
            const auto why = [&](const std::function<void(MemoryTensors&)>& damage) {
                Sample bad = s;
                damage(bad.tensors);
                return refusal([&] { bad.describe(s.text); });
            };
            const bool optional = name.ends_with("zero_point") && s.text["_type"] != "Int4Tensor";
            if (!optional) {
                EXPECT_NE(why([&](auto& t) { t.all.erase(name); }).find(name), std::string::npos);
            }
            for (const char* type : {"F64", "I32", "BOOL", "F8_E5M2", ""})
                EXPECT_NE(why([&](auto& t) { t.all[name].header.dtype = type; }).find(name),
                          std::string::npos)
                    << name << " " << type;
            for (const auto& shape : std::vector<std::vector<int64_t>>{
                     {}, {0}, {8}, {8, 1}, {64, 8}, {-8, -64}, {1, 8, 64}, {INT64_MAX, 2}})
                EXPECT_NE(why([&](auto& t) { t.all[name].header.shape = shape; }).find(name),
                          std::string::npos)
                    << name;
        }
}

}  // namespace
}  // namespace conclave::quant
