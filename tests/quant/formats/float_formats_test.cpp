// fp8, modelopt, quark and mxfp4: what their configs and tensors mean, and what is refused.
#include <gtest/gtest.h>

#include <set>

#include "quant/formats/formats.h"
#include "runtime/base/error.h"
#include "tests/quant/formats/float_cases.h"

namespace conclave::quant {
namespace {

using test::Case;
using test::cases;
using test::kK;
using test::kN;
using test::kStem;
using test::MemoryTensors;
using test::random_tensor;
using test::Tensor;

constexpr const char* kFile = "the-file";
MemoryTensors tensors_of(const Case& c, std::mt19937& rng) {
    MemoryTensors tensors;
    for (const Tensor& t : c.tensors)
        tensors.all[std::string(kStem) + t.suffix] = random_tensor(t.dtype, t.shape, rng);
    return tensors;
}

MatrixSource source_of(const Case& c) {
    MatrixSource s = test::matrix_source(kStem, kN, kK);
    if (c.bare) s.bare = true, s.lead = 1, s.lead_count = 3;
    return s;
}

std::unique_ptr<QuantizationConfig> make(const Json& config) {
    const QuantizationRegistry registry = QuantizationRegistry::built_in();
    return registry.find(config["quant_method"].get<std::string>())->from_config(config, kFile);
}

/// What an error of ours says; "" without one.
std::string refusal(const std::function<void()>& what) {
    try {
        what();
    } catch (const Error& e) {
        EXPECT_TRUE(e.code() == ErrorCode::kBadContent || e.code() == ErrorCode::kUnsupported)
            << e.what();
        EXPECT_LT(std::string(e.what()).size(), 1000u);
        return e.what();
    }
    return "";
}

/// Decodes a cut; a format that took the tensors can read them.
void decode_some(const StoredMatrix& m, const MemoryTensors& tensors, std::mt19937& rng) {
    (void)test::decode_cut(m, {3, 20}, {5, 90}, tensors.reader(m), rng);
}

TEST(FloatFormats, WhatTheyMean) {
    std::mt19937 rng(1);
    for (const Case& c : cases()) {
        SCOPED_TRACE(c.name);
        const MemoryTensors tensors = tensors_of(c, rng);
        const auto m = make(Json::parse(c.config))->describe(source_of(c), tensors);
        ASSERT_TRUE(m);
        EXPECT_EQ(m->encoding.to_string(), c.encoding);
        EXPECT_EQ(m->activation ? m->activation->to_string() : "", c.rule);
        EXPECT_EQ(m->column_scale != nullptr,
                  tensors.all.count(std::string(kStem) + ".pre_quant_scale") == 1);
        std::set<std::string> named(m->companions.begin(), m->companions.end());
        for (const StoredPiece& p : m->pieces) named.insert(p.tensor);
        for (const auto& [name, _] : tensors.all) EXPECT_TRUE(named.count(name)) << name;
        decode_some(*m, tensors, rng);
    }
}

// Rows of fused tensors: a part of a matrix is those rows of the whole.
TEST(FloatFormats, PartsOfFusedMatrices) {
    std::mt19937 rng(2);
    for (const Case& c : cases()) {
        SCOPED_TRACE(c.name);
        const MemoryTensors tensors = tensors_of(c, rng);
        const auto format = make(Json::parse(c.config));
        const auto whole = format->describe(source_of(c), tensors);
        const auto all = test::decode_rows(*whole, {0, kN}, {0, kK}, tensors.reader(*whole), rng);
        MatrixSource s = source_of(c);
        s.row_offset = 7, s.n = 12;
        const auto part = format->describe(s, tensors);
        const std::vector<float> want(all.begin() + 7 * kK, all.begin() + 19 * kK);
        test::expect_cuts(*part, want, tensors.reader(*part), 4, rng);
    }
}

TEST(FloatFormats, FloatsBesideThem) {
    for (const Case& c : cases()) {
        SCOPED_TRACE(c.name);
        const auto format = make(Json::parse(c.config));
        MemoryTensors tensors;
        EXPECT_FALSE(format->describe(source_of(c), tensors));
        tensors.all[std::string(kStem) + (c.bare ? "" : ".weight")].header = {
            "BF16", c.bare ? std::vector<int64_t>{3, kN, kK} : std::vector<int64_t>{kN, kK}};
        const auto m = format->describe(source_of(c), tensors);
        ASSERT_TRUE(m);
        EXPECT_EQ(m->encoding.code, CodeType::kBF16);
        EXPECT_FALSE(m->activation);
        if (c.bare) continue;
        // What is left of a quantization beside them is named.
        std::vector<std::string> left = {std::string(kStem) + ".weight_scale"};
        if (Json::parse(c.config)["quant_method"] == "fp8")
            left.push_back(std::string(kStem) + ".weight_scale_inv");
        left.push_back(std::string(kStem) + ".input_scale");
        for (const std::string& name : left) tensors.all[name].header = {"F32", {}};
        EXPECT_EQ(format->describe(source_of(c), tensors)->companions, left);
    }
}

TEST(FloatFormats, HostileTensors) {
    std::mt19937 rng(3);
    int refused = 0, served = 0;
    for (const Case& c : cases()) {
        const auto format = make(Json::parse(c.config));
        const MemoryTensors good = tensors_of(c, rng);
        for (const Tensor& t : c.tensors) {
            const std::string name = std::string(kStem) + t.suffix;
            SCOPED_TRACE(std::string(c.name) + " " + name);
            const bool codes = &t == &c.tensors.front();
            const auto check = [&](MemoryTensors bad, bool must) {
                std::optional<StoredMatrix> m;
                const std::string why = refusal([&] { m = format->describe(source_of(c), bad); });
                if (!why.empty()) ++refused;
                if (must) {
                    EXPECT_NE(why.find(kStem), std::string::npos) << why;
                }
                if (m) ++served, decode_some(*m, bad, rng);
            };
            MemoryTensors bad = good;
            bad.all.erase(name);
            check(bad, !codes && !t.optional);
            for (const char* dtype : {"F32", "BF16", "F16", "I32", "I8", "U8", "F8_E5M2", "F8_E4M3",
                                      "F8_E8M0", "F64", "", "I64"}) {
                if (dtype == std::string(t.dtype)) continue;
                bad = good;
                bad.all[name] = random_tensor(dtype, t.shape, rng);
                check(bad, codes && std::string(dtype) == "I64");
            }
            std::vector<std::vector<int64_t>> shapes(6, t.shape);
            shapes[0].insert(shapes[0].begin(), 2);
            shapes[1].push_back(3);
            std::reverse(shapes[2].begin(), shapes[2].end());
            if (!t.shape.empty()) shapes[3].back() = INT64_MAX, shapes[4][0] += 1;
            shapes[5] = {-1, INT64_MAX, INT64_MIN};
            for (const auto& shape : shapes) {
                if (shape == t.shape) continue;
                bad = good;
                bad.all[name].header.shape = shape;
                check(bad, std::string(t.suffix) != ".weight_zero_point" &&
                               std::string(t.suffix) != ".input_scale");
            }
        }
    }
    EXPECT_GT(refused, 500);
    EXPECT_GT(served, 10);
}

// Scalars divide or multiply everything: they have to be numbers, those of inputs above 0.
TEST(FloatFormats, HostileScalars) {
    std::mt19937 rng(4);
    int seen = 0;
    for (const Case& c : cases())
        for (const Tensor& t : c.tensors) {
            const std::string suffix = t.suffix, name = kStem + suffix;
            const bool input = suffix == ".input_scale", used = *c.rule != 0;
            if (!(input && used) && suffix != ".weight_scale_2") continue;
            ++seen;
            SCOPED_TRACE(std::string(c.name) + " " + name);
            const auto format = make(Json::parse(c.config));
            for (const float v : {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, -1.0f}) {
                MemoryTensors bad = tensors_of(c, rng);
                bad.all[name] = test::tensor("F32", {}, std::vector<float>{v});
                const std::string why = refusal([&] { format->describe(source_of(c), bad); });
                if (input || !std::isfinite(v)) {
                    EXPECT_NE(why.find(name), std::string::npos) << v << ": " << why;
                }
                if (!input) continue;
                // An expert that calibration never reached has no rule.
                MatrixSource expert = source_of(c);
                expert.stem = "model.layers.0.mlp.experts.1.up_proj";
                MemoryTensors of_expert;
                for (const Tensor& one : c.tensors)
                    of_expert.all[expert.stem + one.suffix] =
                        bad.all[std::string(kStem) + one.suffix];
                EXPECT_FALSE(format->describe(expert, of_expert)->activation) << v;
                of_expert.all.erase(expert.stem + ".input_scale");
                EXPECT_FALSE(format->describe(expert, of_expert)->activation);
            }
        }
    EXPECT_GT(seen, 6);
}

TEST(FloatFormats, ZeroPointsOfInputsAreInt8) {
    std::mt19937 rng(10);
    for (const Case& c : cases()) {
        if (std::string(c.rule) != "int8 static") continue;
        const std::string name = std::string(kStem) + ".input_zero_point";
        MemoryTensors tensors = tensors_of(c, rng);
        const auto describe = [&](float zero) {
            tensors.all[name] = test::tensor("F32", {}, std::vector<float>{zero});
            return make(Json::parse(c.config))->describe(source_of(c), tensors);
        };
        EXPECT_EQ(describe(-128)->activation->zero, -128);
        EXPECT_EQ(describe(127)->activation->zero, 127);
        for (const float bad : {-129.0f, 128.0f, 0.5f, NAN, INFINITY})
            EXPECT_NE(refusal([&] { describe(bad); }).find(name), std::string::npos) << bad;
    }
}

TEST(FloatFormats, HostileColumnScales) {
    std::mt19937 rng(5);
    for (const Case& c : cases()) {
        const std::string name = std::string(kStem) + ".pre_quant_scale";
        MemoryTensors tensors = tensors_of(c, rng);
        if (!tensors.all.count(name)) continue;
        const auto format = make(Json::parse(c.config));
        std::vector<float> values(kK, 1.0f);
        values[77] = NAN;
        tensors.all[name] = test::tensor("F32", {kK}, values);
        const std::string why = refusal([&] { format->describe(source_of(c), tensors); });
        EXPECT_NE(why.find(name), std::string::npos) << why;
        EXPECT_NE(why.find("77"), std::string::npos) << why;
    }
}

/// Every place of `value`, replaced by everything or taken away.
void for_each_damage(const Json& value, const std::function<void(const Json&)>& use) {
    const std::vector<Json> damages = {nullptr,
                                       true,
                                       -1,
                                       0,
                                       1,
                                       3,
                                       1e30,
                                       UINT64_MAX,
                                       INT64_MIN,
                                       "",
                                       "x",
                                       "*",
                                       std::string(70000, '*'),
                                       Json::array(),
                                       Json::object(),
                                       Json::array({1}),
                                       Json::array({Json::object(), Json::object()}),
                                       Json::parse(R"({"a":{"weight":[3]}})")};
    std::set<std::string> places;
    const Json flat = value.flatten();
    for (const auto& [path, leaf] : flat.items())
        for (Json::json_pointer p(path); !p.empty(); p = p.parent_pointer())
            places.insert(p.to_string());
    for (const std::string& place : places) {
        if (place == "/quant_method") continue;
        const Json::json_pointer p(place);
        for (const Json& d : damages) {
            Json bad = value;
            bad[p] = d;
            use(bad);
        }
        Json bad = value;
        if (!bad[p.parent_pointer()].is_object()) continue;
        bad[p.parent_pointer()].erase(p.back());
        use(bad);
    }
}

TEST(FloatFormats, HostileConfigs) {
    std::mt19937 rng(6);
    int served = 0, refused = 0;
    for (const Case& c : cases()) {
        SCOPED_TRACE(c.name);
        const MemoryTensors tensors = tensors_of(c, rng);
        Json config = Json::parse(c.config);
        if (config["quant_method"] == "quark") {
            config["layer_quant_config"]["*k_proj*"] = config["global_quant_config"];
            config["layer_type_quant_config"]["Linear"] = config["global_quant_config"];
        }
        ASSERT_TRUE(make(config)->describe(source_of(c), tensors));
        for_each_damage(config, [&](const Json& bad) {
            std::unique_ptr<QuantizationConfig> format;
            const std::string at_start = refusal([&] { format = make(bad); });
            if (!format) {
                ++refused;
                EXPECT_NE(at_start.find(kFile), std::string::npos) << at_start;
                return;
            }
            std::optional<StoredMatrix> m;
            const std::string why = refusal([&] { m = format->describe(source_of(c), tensors); });
            EXPECT_NE(m.has_value(), !why.empty());
            if (!m) return void(++refused);
            ++served;
            decode_some(*m, tensors, rng);
        });
    }
    EXPECT_GT(served, 500);
    EXPECT_GT(refused, 1000);
}

TEST(FloatFormats, RefusedByName) {
    std::mt19937 rng(7);
    const auto start = [](const char* config) {
        return refusal([&] { make(Json::parse(config)); });
    };
    const auto names = [](const std::string& why, const std::string& name) {
        EXPECT_NE(why.find(name), std::string::npos) << name << " in " << why;
    };
    names(start(R"({"quant_method":"fp8"})"), "activation_scheme");
    names(start(R"({"quant_method":"fp8","activation_scheme":"sometimes"})"), "sometimes");
    names(start(R"({"quant_method":"fp8","activation_scheme":"dynamic","scale_fmt":"e5"})"), "e5");
    names(start(R"({"quant_method":"fp8","activation_scheme":"static",
                    "weight_block_size":[128,128]})"),
          "dynamic");
    names(start(R"({"quant_method":"modelopt","quant_algo":"NVFP4_SVD"})"), "NVFP4_SVD");
    names(start(R"({"quant_method":"modelopt","quant_algo":"W4A8_AWQ"})"), "W4A8_AWQ");
    names(start(R"({"quant_method":"modelopt","quant_algo":"W4A16_AWQ"})"), "group_size");
    names(start(R"({"quant_method":"modelopt","quant_algo":"W4A16_AWQ","group_size":32,
                    "has_zero_point":true})"),
          "zero");
    names(start(R"({"quant_method":"quark","export":{"pack_method":"spiral"}})"), "spiral");
    const auto quark = [&](const std::string& weight) {
        MemoryTensors tensors;
        tensors.all["m.weight"] = random_tensor("I32", {kN, kK / 8}, rng);
        const Json config = Json::parse(
            R"({"quant_method":"quark","global_quant_config":{"weight":)" + weight + "}}");
        return refusal([&] { make(config)->describe(test::matrix_source("m", kN, kK), tensors); });
    };
    names(quark(R"([{"dtype":"fp8_e4m3","qscheme":"per_tensor"},
                    {"dtype":"int4","qscheme":"per_channel"}])"),
          "fp8_e4m3, int4");
    names(quark(R"({"dtype":"mx","qscheme":"per_group","group_size":32})"), "\"mx\"");
    names(quark("null"), "m.weight");
    MemoryTensors rotated;
    rotated.all["m.weight"] = random_tensor("F8_E4M3", {kN, kK}, rng);
    rotated.all["m.input_rotation"] = random_tensor("F32", {kK, kK}, rng);
    names(refusal([&] {
              make(Json::parse(R"({"quant_method":"quark"})"))
                  ->describe(test::matrix_source("m", kN, kK), rotated);
          }),
          "m.input_rotation");
}

TEST(FloatFormats, ModelOptWithoutAnAlgorithm) {
    std::mt19937 rng(12);
    for (const char* text : {R"({"quant_method":"modelopt"})",
                             R"({"quant_method":"modelopt","quant_algo":null,
                                 "kv_cache_quant_algo":"FP8"})"}) {
        const auto format = make(Json::parse(text));
        MemoryTensors tensors;
        tensors.all["m.weight"] = random_tensor("BF16", {kN, kK}, rng);
        const auto describe = [&] {
            return format->describe(test::matrix_source("m", kN, kK), tensors);
        };
        EXPECT_FALSE(describe()->column_scale);
        tensors.all["m.pre_quant_scale"] = test::tensor("F32", {kK}, std::vector<float>(kK, 3.0f));
        const auto scaled = describe();
        ASSERT_TRUE(scaled->column_scale);
        EXPECT_EQ(*scaled->column_scale, std::vector<float>(kK, 3.0f));
        EXPECT_EQ(scaled->encoding.code, CodeType::kBF16);
        tensors.all["m.weight"] = random_tensor("F8_E4M3", {kN, kK}, rng);
        tensors.all["m.weight_scale"] = random_tensor("F32", {}, rng);
        const std::string why = refusal(describe);
        EXPECT_NE(why.find("m.weight"), std::string::npos) << why;
        EXPECT_NE(why.find("quant_algo"), std::string::npos) << why;
    }
}

TEST(FloatFormats, OneScaleMayHaveAxes) {
    std::mt19937 rng(11);
    const auto span = [&](const char* config, bool bare, std::vector<int64_t> shape) {
        MatrixSource s = test::matrix_source("m", kN, kK);
        if (bare) s.bare = true, s.lead = 1, s.lead_count = 3;
        MemoryTensors tensors;
        tensors.all[bare ? "m" : "m.weight"] = random_tensor(
            "F8_E4M3", bare ? std::vector<int64_t>{3, kN, kK} : std::vector<int64_t>{kN, kK}, rng);
        tensors.all[bare ? "m_scale" : "m.weight_scale"] = random_tensor("F32", shape, rng);
        const auto m = make(Json::parse(config))->describe(s, tensors);
        decode_some(*m, tensors, rng);
        return m->encoding.group_rows;
    };
    const char* fp8 = R"({"quant_method":"fp8","activation_scheme":"dynamic"})";
    EXPECT_EQ(span(fp8, false, {1, 1}), 0);
    EXPECT_EQ(span(fp8, false, {kN, 1}), 1);
    EXPECT_EQ(span(fp8, true, {3, 1, 1}), 0);
    EXPECT_EQ(span(fp8, true, {3, 1}), 0);
    EXPECT_NE(refusal([&] { span(fp8, true, {2, 1, 1}); }).find("m_scale"), std::string::npos);
    const char* blocks = R"({"quant_method":"fp8","activation_scheme":"dynamic",
                             "weight_block_size":[16,64]})";
    EXPECT_NE(refusal([&] { span(blocks, false, {1, 1}); }).find("[2, 2]"), std::string::npos);
}

TEST(FloatFormats, QuarkScaleFormats) {
    std::mt19937 rng(9);
    MemoryTensors tensors;
    tensors.all["m.weight"] = random_tensor("F8_E4M3", {kN, kK}, rng);
    tensors.all["m.weight_scale"] = random_tensor("F32", {}, rng);
    const auto rule = [&](const std::string& input) {
        const Json config = Json::parse(
            R"({"quant_method":"quark","global_quant_config":{
                "weight":{"dtype":"fp8_e4m3","qscheme":"per_tensor"},"input_tensors":)" +
            input + "}}");
        return make(config)->describe(test::matrix_source("m", kN, kK), tensors)->activation;
    };
    EXPECT_EQ(rule(R"({"dtype":"fp8_e4m3","qscheme":"per_group","group_size":32,
                       "is_dynamic":true,"scale_format":"e8m0"})"),
              (ActivationRule{.code = ActivationCode::kE4M3,
                              .scale_rule = ScaleRule::kEvenPow2,
                              .group = 32,
                              .top = 8}));
    EXPECT_EQ(rule(R"({"dtype":"fp8_e4m3","qscheme":"per_group","group_size":32,
                       "is_dynamic":true,"scale_format":"float32"})")
                  ->scale_rule,
              ScaleRule::kAbsMax);
    const auto refused = [&](const char* input, const char* name) {
        const std::string why = refusal([&] { rule(input); });
        EXPECT_NE(why.find(name), std::string::npos) << why;
    };
    refused(R"({"dtype":"fp4","qscheme":"per_group","group_size":32,"is_dynamic":true})",
            "scale_format float32");
    refused(R"({"dtype":"fp8_e4m3","qscheme":"per_token","is_dynamic":true,
                "scale_format":"e8m0"})",
            "scale_format e8m0");
    refused(R"({"dtype":"int8","qscheme":"per_token","is_dynamic":true,"scale_format":"e8m0"})",
            "scale_format e8m0");
}

TEST(FloatFormats, QuarkPatterns) {
    std::mt19937 rng(8);
    const auto config = Json::parse(R"({"quant_method":"quark",
        "global_quant_config":{"weight":{"dtype":"fp8_e4m3","qscheme":"per_tensor"}},
        "layer_quant_config":{
            "*self_attn*":{"weight":{"dtype":"fp8_e4m3","qscheme":"per_channel"}},
            "*.1.*":{"weight":{"dtype":"int8","qscheme":"per_tensor"}},
            "l.0.self_attn.o":{"weight":{"dtype":"fp8_e4m3","qscheme":"per_tensor"}}}})");
    const auto format = make(config);
    MemoryTensors tensors;
    const auto span = [&](const std::string& stem, std::vector<int64_t> scales) {
        tensors.all[stem + ".weight"] = random_tensor("F8_E4M3", {kN, kK}, rng);
        tensors.all[stem + ".weight_scale"] = random_tensor("F32", std::move(scales), rng);
        return format->describe(test::matrix_source(stem, kN, kK), tensors)->encoding.group_rows;
    };
    EXPECT_EQ(span("l.0.mlp.up", {}), 0);
    EXPECT_EQ(span("l.0.self_attn.q", {kN}), 1);
    EXPECT_EQ(span("l.0.self_attn.o", {}), 0);
    EXPECT_NE(refusal([&] { span("l.1.self_attn.q", {kN}); }).find("contradict"),
              std::string::npos);
}

// What stands only beside config.json, there and without config.json's own.
TEST(FloatFormats, SidecarsCompleteTheConfig) {
    const QuantizationRegistry registry = QuantizationRegistry::built_in();
    const Json sidecar = Json::parse(R"({"producer":{"name":"modelopt"},"quantization":{
        "quant_algo":"W4A16_AWQ","group_size":32,"kv_cache_quant_algo":null}})");
    const auto source = [&](const char* model, const Json& beside, const char* name) {
        return registry.source(Json::parse(model), "config.json",
                               [&](const std::string& file) -> std::optional<Sidecar> {
                                   if (file != name) return std::nullopt;
                                   return Sidecar{beside, "dir/" + file};
                               });
    };
    const char* name = "hf_quant_config.json";
    const auto alone = source("{}", sidecar, name);
    EXPECT_EQ(alone.method, "modelopt");
    EXPECT_EQ(alone.file, "dir/hf_quant_config.json");
    EXPECT_EQ(alone.config["group_size"], 32);
    EXPECT_NO_THROW(make(alone.config));
    const auto both = source(R"({"quantization_config":{"quant_method":"modelopt",
        "quant_algo":"FP8","group_size":null,"ignore":["lm_head"]}})",
                             sidecar, name);
    EXPECT_EQ(both.config["quant_algo"], "FP8");
    EXPECT_EQ(both.config["group_size"], 32);
    EXPECT_EQ(both.config["ignore"].size(), 1u);
    EXPECT_EQ(source("{}", sidecar, "nothing").method, "none");
    for (const std::string other : {"modelopt_fp4", "modelopt_mxfp8"}) {
        const auto claimed =
            source(("{\"quantization_config\":{\"quant_method\":\"" + other + "\"}}").c_str(),
                   sidecar, name);
        EXPECT_EQ(claimed.method, "modelopt");
        EXPECT_EQ(claimed.stated, other);
        EXPECT_EQ(claimed.config["quant_algo"], "W4A16_AWQ");
    }
    // The file of another format is not asked for.
    const auto gptq =
        source(R"({"quantization_config":{"quant_method":"gptq","bits":4}})", sidecar, name);
    EXPECT_FALSE(gptq.config.contains("group_size"));
    EXPECT_EQ(source("{}", Json::parse(R"({"checkpoint_format":"marlin"})"), "quantize_config.json")
                  .method,
              "marlin");
    for (const char* bad : {R"({"quantization":3})", "{}", R"({"quantization":[]})"})
        EXPECT_NE(refusal([&] { source("{}", Json::parse(bad), name); }).find("hf_quant_config"),
                  std::string::npos);
    for (const char* bad : {R"({"quantization_config":[]})", R"({"quantization_config":{}})",
                            R"({"quantization_config":{"quant_method":7}})"})
        EXPECT_NE(refusal([&] { source(bad, sidecar, name); }).find("config.json"),
                  std::string::npos);
}

}  // namespace
}  // namespace conclave::quant
