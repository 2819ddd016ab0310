#include <gtest/gtest.h>

#include <array>
#include <set>

#include "quant/formats/formats.h"
#include "runtime/base/half.h"
#include "tests/quant/formats/memory_tensors.h"
#include "tests/quant/formats/packer.h"

namespace conclave::quant {
namespace {

using nlohmann::json;
using test::MemoryTensors;

json group_of(const json& weights, const json& targets = {"Linear"}) {
    return {{"targets", targets},
            {"weights", weights},
            {"input_activations", nullptr},
            {"output_activations", nullptr}};
}

json config_of(const json& groups, const std::string& version = "0.19.0") {
    return {{"quant_method", "compressed-tensors"},
            {"format", "pack-quantized"},
            {"quantization_status", "compressed"},
            {"config_groups", groups},
            {"ignore", {"lm_head"}},
            {"kv_cache_scheme", nullptr},
            {"sparsity_config", json::object()},
            {"transform_config", json::object()},
            {"version", version}};
}

json weights_of(int bits, bool symmetric, const std::string& strategy, int64_t group) {
    return {{"num_bits", bits},
            {"type", "int"},
            {"symmetric", symmetric},
            {"strategy", strategy},
            {"group_size", strategy == "group" ? json(group) : json()},
            {"dynamic", false},
            {"actorder", nullptr},
            {"observer", "minmax"}};
}

std::unique_ptr<QuantizationConfig> make(const json& config) {
    return compressed_tensors_format().from_config(config, "the-file");
}

/// Why `f` throws; empty where it does not.
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

struct Case {
    int64_t n = 0, k = 0;
    int bits = 4;
    bool bytes = false, symmetric = true, old = false;
    std::string strategy = "group";
    int64_t group = 32;
    std::vector<int32_t> order;  ///< g_idx, where stored
};

struct Sample {
    json config;
    MemoryTensors tensors;
    std::vector<float> values;  ///< [n, k]
};

void store_words(MemoryTensors& tensors, const std::string& name, const Case& c, int64_t lines,
                 int64_t length, bool along_rows,
                 const std::function<uint8_t(int64_t line, int64_t i)>& code, std::mt19937& rng) {
    const Packing packing = c.old ? Packing::kPerWord : Packing::kStream;
    const int64_t words = packed_words(packing, c.bits, length);
    std::vector<uint32_t> all(static_cast<size_t>(words * lines));
    for (int64_t l = 0; l < lines; ++l) {
        std::vector<uint8_t> codes;
        for (int64_t i = 0; i < length; ++i) codes.push_back(code(l, i));
        const auto line = test::pack(packing, c.bits, codes, rng);
        for (int64_t w = 0; w < words; ++w)
            all[static_cast<size_t>(along_rows ? l * words + w : w * lines + l)] =
                line[static_cast<size_t>(w)];
    }
    tensors.all[name] = test::tensor(
        "I32", along_rows ? std::vector<int64_t>{lines, words} : std::vector<int64_t>{words, lines},
        all);
}

Sample make_sample(const Case& c, std::mt19937& rng) {
    Sample s;
    s.config = config_of({{"g", group_of(weights_of(c.bits, c.symmetric, c.strategy, c.group))}},
                         c.old ? "0.17.1" : "0.18.0");
    if (c.bytes) s.config["format"] = "int-quantized";
    const int64_t groups = c.strategy == "group" ? (c.k + c.group - 1) / c.group : 1;
    const int64_t rows = c.strategy == "tensor" ? 1 : c.n;
    const int half = 1 << (c.bits - 1);
    std::vector<int8_t> codes(static_cast<size_t>(c.n * c.k)), zeros;
    for (int8_t& q : codes) q = static_cast<int8_t>(static_cast<int>(rng() % (2u * half)) - half);
    std::vector<uint16_t> scales;
    for (int64_t i = 0; i < rows * groups; ++i) {
        scales.push_back(f32_to_bf16((rng() % 2 ? 0.1f : -0.1f) * static_cast<float>(rng() % 99)));
        zeros.push_back(c.symmetric
                            ? int8_t{0}
                            : static_cast<int8_t>(static_cast<int>(rng() % (2u * half)) - half));
    }
    for (int64_t r = 0; r < c.n; ++r)
        for (int64_t k = 0; k < c.k; ++k) {
            const int64_t g = !c.order.empty() && c.order[0] >= 0 ? c.order[static_cast<size_t>(k)]
                              : c.strategy == "group"             ? k / c.group
                                                                  : 0;
            const auto at = static_cast<size_t>(r % rows * groups + g);
            s.values.push_back(
                static_cast<float>(codes[static_cast<size_t>(r * c.k + k)] - zeros[at]) *
                    bf16_to_f32(scales[at]) +
                0.0f);
        }
    const auto stored = [&](const std::vector<int8_t>& from, int64_t at) {
        return static_cast<uint8_t>(from[static_cast<size_t>(at)] + half);
    };
    if (c.bytes) {
        s.tensors.all["m.weight"] = test::tensor("I8", {c.n, c.k}, codes);
        if (!c.symmetric)
            s.tensors.all["m.weight_zero_point"] = test::tensor(
                "I8", rows == 1 ? std::vector<int64_t>{1} : std::vector<int64_t>{rows, groups},
                zeros);
    } else {
        store_words(
            s.tensors, "m.weight_packed", c, c.n, c.k, true,
            [&](int64_t r, int64_t k) { return stored(codes, r * c.k + k); }, rng);
        if (!c.symmetric)
            store_words(
                s.tensors, "m.weight_zero_point", c, groups, c.n, false,
                [&](int64_t g, int64_t r) { return stored(zeros, r * groups + g); }, rng);
        s.tensors.all["m.weight_shape"] = test::tensor("I64", {2}, std::vector<int64_t>{c.n, c.k});
    }
    std::vector<int64_t> shape = {rows, groups};
    if (c.strategy == "tensor") shape = {1};
    if (c.strategy == "channel" && rng() % 2) shape = {c.n};
    s.tensors.all["m.weight_scale"] = test::tensor("BF16", shape, scales);
    if (!c.order.empty()) s.tensors.all["m.weight_g_idx"] = test::tensor("I32", {c.k}, c.order);
    return s;
}

Case random_case(std::mt19937& rng) {
    Case c;
    c.n = 1 + static_cast<int64_t>(rng() % 80);
    c.k = 1 + static_cast<int64_t>(rng() % 150);
    c.bits = 1 + static_cast<int>(rng() % 8);
    c.bytes = rng() % 3 == 0;
    c.symmetric = rng() % 2;
    c.old = rng() % 2;
    c.strategy = std::array{"group", "channel", "tensor"}[rng() % 3];
    if (!c.bytes && c.strategy == "tensor" && !c.symmetric) c.strategy = "group";
    c.group = std::array{8, 24, 32, 64, 128}[rng() % 5];
    const int order = static_cast<int>(rng() % 4);
    if (c.strategy == "group" && order > 0) {
        for (int64_t i = 0; i < c.k; ++i) c.order.push_back(static_cast<int32_t>(i / c.group));
        if (order == 1) std::shuffle(c.order.begin(), c.order.end(), rng);
        if (order == 2) c.order.assign(static_cast<size_t>(c.k), -1);
    }
    return c;
}

TEST(CompressedTensors, AnyCutDecodesAlike) {
    std::mt19937 rng(1);
    int permuted = 0;
    for (int i = 0; i < 200; ++i) {
        const Case c = random_case(rng);
        const Sample s = make_sample(c, rng);
        MatrixSource source = test::matrix_source("m", c.n, c.k);
        std::vector<float> values = s.values;
        if (rng() % 2) {
            const Interval rows = test::random_cut(c.n, rng);
            source.n = rows.size(), source.row_offset = rows.begin;
            values.assign(s.values.begin() + rows.begin * c.k, s.values.begin() + rows.end * c.k);
        }
        const auto m = make(s.config)->describe(source, s.tensors);
        ASSERT_TRUE(m);
        EXPECT_EQ(m->encoding.bits, c.bits);
        EXPECT_EQ(m->encoding.code, c.bits <= 4 ? CodeType::kU4 : CodeType::kU8);
        EXPECT_EQ(m->encoding.zero, c.symmetric ? FactorType::kNone : FactorType::kU8);
        EXPECT_EQ(m->encoding.permuted, m->group_of != nullptr);
        permuted += m->encoding.permuted;
        test::expect_cuts(*m, values, s.tensors.reader(*m), 4, rng);
        std::set<std::string> known(m->companions.begin(), m->companions.end());
        for (const StoredPiece& p : m->pieces) known.insert(p.tensor);
        EXPECT_EQ(known.size(), s.tensors.all.size());
    }
    EXPECT_GT(permuted, 10);
}

/// Rows of 0 ... 7, four times, as each version stores them.
TEST(CompressedTensors, WordsOfThreeBitsByVersion) {
    const auto decode = [](const std::vector<uint32_t>& words, const std::string& version,
                           int64_t k) {
        std::mt19937 rng(2);
        MemoryTensors tensors;
        tensors.all["m.weight_packed"] =
            test::tensor("I32", {1, static_cast<int64_t>(words.size())}, words);
        tensors.all["m.weight_scale"] = test::tensor("F32", {1, 1}, std::vector<float>{1});
        const json config =
            config_of({{"g", group_of(weights_of(3, true, "channel", 0))}}, version);
        const auto m = make(config)->describe(test::matrix_source("m", 1, k), tensors);
        return test::decode_rows(*m, {0, 1}, {0, k}, tensors.reader(*m), rng);
    };
    std::vector<float> want;
    for (int i = 0; i < 32; ++i) want.push_back(static_cast<float>(i % 8 - 4));
    const std::vector<uint32_t> old = {0x08FAC688, 0x1A23EB1A, 0x2C688FAC, 0x0000003E};
    const std::vector<uint32_t> dense = {0x88FAC688, 0xC688FAC6, 0xFAC688FA};
    for (const char* version : {"0.17.1", "0.19.0", ""}) {
        EXPECT_EQ(decode(old, version, 32), want);
        EXPECT_EQ(decode(dense, version, 32), want);
    }
    // 16 columns take two words either way: the version tells.
    want.resize(16);
    EXPECT_EQ(decode({0x08FAC688, 0x1A23EB1A}, "0.17.9", 16), want);
    EXPECT_EQ(decode({0x08FAC688, 0x1A23EB1A}, "", 16), want);
    EXPECT_EQ(decode({0x88FAC688, 0xC688FAC6}, "0.18.0", 16), want);
    EXPECT_EQ(decode({0x88FAC688, 0xC688FAC6}, "1.0", 16), want);
}

TEST(CompressedTensors, FourBitWordAndOneScale) {
    std::mt19937 rng(3);
    MemoryTensors tensors;
    tensors.all["m.weight_packed"] = test::tensor("I32", {1, 1}, std::vector<uint32_t>{0x749180F3});
    tensors.all["m.weight_scale"] = test::tensor("F32", {1, 1}, std::vector<float>{-0.5f});
    const auto format = make(config_of({{"g", group_of(weights_of(4, true, "channel", 0))}}));
    const auto m = format->describe(test::matrix_source("m", 1, 8), tensors);
    const auto values = test::decode_rows(*m, {0, 1}, {0, 8}, tensors.reader(*m), rng);
    EXPECT_EQ(values, (std::vector<float>{2.5f, -3.5f, 4, 0, 3.5f, -0.5f, 2, 0.5f}));
    EXPECT_FALSE(std::signbit(values[3])) << "zero has no sign, whatever the scale's";
}

/// A matrix of `bits` tells which config group was used for it.
class Matching : public ::testing::Test {
  protected:
    int bits_of(const json& groups, const std::string& module) {
        const auto format = make(config_of(groups));
        MemoryTensors tensors;
        tensors.all[module + ".weight"] = test::tensor("I8", {2, 2}, std::vector<int8_t>(4));
        tensors.all[module + ".weight_scale"] = test::tensor("F32", {2, 1}, std::vector<float>(2));
        const auto m = format->describe(test::matrix_source(module, 2, 2), tensors);
        return m ? m->encoding.bits : 0;
    }
    json group(int bits, const json& targets) {
        return group_of(weights_of(bits, true, "channel", 0), targets);
    }
};

TEST_F(Matching, NamesThenPatternsThenClasses) {
    const json groups = {{"a", group(2, {"Linear"})},
                         {"b", group(3, {"re:.*down_proj$", "re:.*experts.*"})},
                         {"c", group(5, {"re:.*1\\.down_proj"})},
                         {"d", group(6, {"m.1.down_proj"})}};
    EXPECT_EQ(bits_of(groups, "m.q_proj"), 2);
    EXPECT_EQ(bits_of(groups, "m.0.down_proj"), 3);
    EXPECT_EQ(bits_of(groups, "m.1.down_proj"), 6);
    EXPECT_EQ(bits_of(groups, "x.1.down_proj"), 5) << "lexicographic: '.*1' before '.*d'";
    EXPECT_EQ(bits_of(groups, "experts.up"), 3);
    EXPECT_EQ(bits_of({{"a", group(4, {"re:m"})}}, "m.x"), 4);
    EXPECT_NE(refusal([&] {
                  bits_of({{"a", group(4, {"re:x"})}}, "m.x");
              }).find("m.x.weight"),
              std::string::npos)
        << "anchored at the start";
    EXPECT_EQ(bits_of({{"a", group(4, {"Linear"})}, {"b", group(7, {"Linear"})}}, "m"), 7);
}

TEST_F(Matching, PresetsAreGroupNames) {
    EXPECT_EQ(bits_of({{"INT8", {"Linear"}}}, "m"), 8);
    EXPECT_EQ(bits_of({{"w8a8", {"re:m"}}}, "m"), 8);
    for (const char* name : {"W4A16_ASYM", "FP8", "NVFP4", "W9A16", "W", ""})
        EXPECT_NE(refusal([&] { bits_of({{name, {"Linear"}}}, "m"); }), "") << name;
    std::mt19937 rng(4);
    Case c;
    c.n = 16, c.k = 256, c.group = 128, c.symmetric = false;
    Sample s = make_sample(c, rng);
    s.config["config_groups"] = {{"W4A16_ASYM", {"Linear"}}};
    const auto m = make(s.config)->describe(test::matrix_source("m", 16, 256), s.tensors);
    ASSERT_TRUE(m);
    test::expect_cuts(*m, s.values, s.tensors.reader(*m), 3, rng);
}

TEST(CompressedTensors, GroupsAreRefusedWhereTheyAreMet) {
    const json odd = {{"num_bits", 6}, {"type", "float"}, {"strategy", "channel"}};
    json config = config_of({{"fp6_group", group_of(odd, {"re:.*q_proj"})},
                             {"int_group", group_of(weights_of(8, true, "channel", 0))}});
    config["format"] = "mixed-precision";
    MemoryTensors tensors;
    for (const char* name : {"q_proj", "o_proj"}) {
        const bool q = name[0] == 'q';
        tensors.all[std::string(name) + ".weight"] =
            test::tensor(q ? "F8_E4M3" : "I8", {2, 2}, std::vector<int8_t>(4));
        tensors.all[std::string(name) + ".weight_scale"] =
            test::tensor("F32", {2, 1}, std::vector<float>(2));
    }
    const auto format = make(config);
    EXPECT_TRUE(format->describe(test::matrix_source("o_proj", 2, 2), tensors));
    const auto met =
        refusal([&] { format->describe(test::matrix_source("q_proj", 2, 2), tensors); });
    EXPECT_NE(met.find("fp6_group"), std::string::npos) << met;
    EXPECT_NE(met.find("float weights of 6 bits"), std::string::npos) << met;
    EXPECT_NE(met.find("q_proj.weight"), std::string::npos) << met;
}

TEST(CompressedTensors, PlainMatricesAndLeftovers) {
    const auto format = make(config_of({{"g", group_of(weights_of(4, true, "group", 32))}}));
    MemoryTensors tensors;
    EXPECT_FALSE(format->describe(test::matrix_source("m", 2, 2), tensors));
    const std::string stem = "model.layers.0.self_attn.k_proj";
    tensors.all[stem + ".weight"] = test::tensor("BF16", {2, 2}, std::vector<uint16_t>(4));
    tensors.all[stem + ".input_scale"] = test::tensor("F32", {1}, std::vector<float>(1));
    tensors.all["model.layers.0.self_attn.k_scale"] =
        test::tensor("F32", {1}, std::vector<float>(1));
    const auto m = format->describe(test::matrix_source(stem, 2, 2), tensors);
    ASSERT_TRUE(m);
    EXPECT_EQ(m->encoding.code, CodeType::kBF16);
    EXPECT_EQ(m->companions.size(), 2u);
    tensors.all[stem + ".weight_packed"] = test::tensor("I32", {2, 1}, std::vector<int32_t>(2));
    EXPECT_NE(
        refusal([&] { format->describe(test::matrix_source(stem, 2, 2), tensors); }).find("twice"),
        std::string::npos);
}

TEST(CompressedTensors, RefusedByName) {
    const json groups = {{"g", group_of(weights_of(4, true, "group", 32))}};
    const auto with = [&](const char* key, const json& value) {
        json config = config_of(groups);
        config[key] = value;
        return refusal([&] { make(config); });
    };
    EXPECT_EQ(with("transform_config", nullptr), "");
    EXPECT_EQ(with("transform_config", {{"config_groups", json::object()}}), "");
    EXPECT_NE(with("transform_config", {{"config_groups", {{"r", {{"type", "hadamard"}}}}}})
                  .find("transform_config"),
              std::string::npos);
    EXPECT_EQ(with("sparsity_config", {{"format", "dense"}}), "");
    EXPECT_NE(with("sparsity_config", {{"format", "sparse-24-bitmask"}}).find("sparse-24-bitmask"),
              std::string::npos);
    EXPECT_NE(with("format", "marlin-24").find("marlin-24"), std::string::npos);
    EXPECT_EQ(with("kv_cache_scheme", {{"num_bits", 8}}), "");
    std::mt19937 rng(5);
    Case c;
    c.n = c.k = 64;
    const Sample s = make_sample(c, rng);
    const auto described = [&](const char* key, const json& value) {
        json config = s.config;
        config["config_groups"]["g"][key] = value;
        return refusal(
            [&] { make(config)->describe(test::matrix_source("m", 64, 64), s.tensors); });
    };
    EXPECT_NE(described("input_activations", {{"num_bits", 8}}).find("m.input_scale"),
              std::string::npos);
    EXPECT_NE(described("input_activations", {{"num_bits", 4}}).find("input_activations"),
              std::string::npos);
    EXPECT_NE(described("output_activations", {{"num_bits", 8}}).find("output_activations"),
              std::string::npos);
    EXPECT_NE(described("format", "nvfp4-e5m3").find("nvfp4-e5m3"), std::string::npos);
    EXPECT_NE(described("weights", nullptr).find("m.weight_packed"), std::string::npos);
}

/// Every place of `value`, replaced by everything.
void for_each_damage(const json& value, const std::function<void(const json&)>& use) {
    const std::vector<json> damages = {nullptr,
                                       true,
                                       -1,
                                       0,
                                       1,
                                       3,
                                       1e30,
                                       18446744073709551615u,
                                       INT64_MIN,
                                       "",
                                       "re:(",
                                       std::string(70000, '('),
                                       json::array(),
                                       json::object(),
                                       json::array({1}),
                                       json::array({"re:(a+)+$"}),
                                       json::parse(R"({"a": {"targets": 3}})")};
    std::vector<json::json_pointer> places;
    const auto flat = value.flatten();
    for (const auto& [path, leaf] : flat.items()) {
        (void)leaf;
        for (json::json_pointer p(path);; p = p.parent_pointer()) {
            if (std::find(places.begin(), places.end(), p) == places.end()) places.push_back(p);
            if (p.empty()) break;
        }
    }
    for (const json::json_pointer& p : places) {
        for (const json& d : damages) {
            json bad = value;
            bad[p] = d;
            use(bad);
        }
        json bad = value;
        if (p.empty() || !bad[p.parent_pointer()].is_object()) continue;
        bad[p.parent_pointer()].erase(p.back());
        use(bad);
    }
}

TEST(CompressedTensors, HostileConfigs) {
    std::mt19937 rng(6);
    Case c;
    c.n = 24, c.k = 96, c.symmetric = false;
    const Sample s = make_sample(c, rng);
    json config = s.config;
    config["config_groups"]["h"] = group_of(weights_of(8, true, "channel", 0), {"re:.*down"});
    int served = 0, refused = 0;
    for_each_damage(config, [&](const json& bad) {
        std::unique_ptr<QuantizationConfig> format;
        const std::string at_start = refusal([&] { format = make(bad); });
        if (!format) {
            ++refused;
            EXPECT_NE(at_start.find("the-file"), std::string::npos) << at_start;
            EXPECT_LT(at_start.size(), 500u);
            return;
        }
        std::optional<StoredMatrix> m;
        const std::string why =
            refusal([&] { m = format->describe(test::matrix_source("m", 24, 96), s.tensors); });
        EXPECT_NE(m.has_value(), !why.empty());
        if (!m) return void(++refused);
        ++served;
        const auto read = s.tensors.reader(*m);
        (void)test::decode_cut(*m, {3, 20}, {5, 90}, read, rng);
    });
    EXPECT_GT(served, 50);
    EXPECT_GT(refused, 200);
}

TEST(CompressedTensors, HostileTensors) {
    std::mt19937 rng(7);
    for (const bool bytes : {false, true}) {
        Case c;
        c.n = 24, c.k = 96, c.symmetric = false, c.bytes = bytes;
        for (int64_t i = 0; i < c.k; ++i) c.order.push_back(static_cast<int32_t>(i % 3));
        const Sample s = make_sample(c, rng);
        const auto format = make(s.config);
        const auto source = test::matrix_source("m", 24, 96);
        ASSERT_TRUE(format->describe(source, s.tensors));
        const auto check = [&](const MemoryTensors& tensors, const std::string& name, bool must) {
            std::optional<StoredMatrix> m;
            const std::string why = refusal([&] { m = format->describe(source, tensors); });
            EXPECT_TRUE(!must || why.find(name) != std::string::npos) << name << ": " << why;
            if (m) (void)test::decode_cut(*m, {0, 24}, {1, 96}, tensors.reader(*m), rng);
        };
        for (const auto& [name, good] : s.tensors.all) {
            const bool optional = name == "m.weight_shape" || name == "m.weight_g_idx";
            MemoryTensors bad = s.tensors;
            bad.all.erase(name);
            const bool codes = name == "m.weight" || name == "m.weight_packed";
            if (codes)
                EXPECT_FALSE(format->describe(source, bad));
            else
                check(bad, name, !optional);
            for (const char* type : {"F64", "U8", "I16", "BOOL", "F8_E4M3", ""}) {
                bad = s.tensors;
                bad.all[name].header.dtype = type;
                check(bad, name, true);
            }
            for (const std::vector<int64_t>& shape : {std::vector<int64_t>{},
                                                      {0},
                                                      {1},
                                                      {-1, -1},
                                                      {24},
                                                      {25, 96},
                                                      {24, 5},
                                                      {96, 24},
                                                      {int64_t{1} << 61, 8},
                                                      {INT64_MAX, INT64_MAX},
                                                      {24, 96, 1}}) {
                if (shape == good.header.shape) continue;
                bad = s.tensors;
                bad.all[name].header.shape = shape;
                check(bad, name, true);
            }
        }
        for (const int32_t group : {-2, 3, INT32_MAX, INT32_MIN}) {
            MemoryTensors bad = s.tensors;
            std::memcpy(bad.all["m.weight_g_idx"].bytes.data() + 40, &group, 4);
            check(bad, "m.weight_g_idx", true);
        }
        if (bytes) continue;
        for (const int64_t size : {int64_t{-1}, int64_t{0}, int64_t{25}, INT64_MAX, INT64_MIN}) {
            MemoryTensors bad = s.tensors;
            std::memcpy(bad.all["m.weight_shape"].bytes.data(), &size, 8);
            check(bad, "m.weight_shape", true);
        }
    }
}

}  // namespace
}  // namespace conclave::quant
