// Configs of GPTQ, AWQ and AutoRound as a hostile file may have them.
#include <gtest/gtest.h>

#include <random>

#include "quant/formats/formats.h"
#include "runtime/base/error.h"
#include "runtime/base/json.h"
#include "tests/quant/formats/memory_tensors.h"

namespace conclave::quant {
namespace {

constexpr const char* kFile = "dir/config.json";

std::unique_ptr<QuantizationConfig> make(const Json& config) {
    const QuantizationRegistry registry = QuantizationRegistry::built_in();
    return registry.find(config["quant_method"].get<std::string>())->from_config(config, kFile);
}

std::string refusal(const Json& config, ErrorCode code) {
    try {
        make(config);
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), code) << e.what();
        EXPECT_NE(std::string(e.what()).find(kFile), std::string::npos) << e.what();
        return e.what();
    }
    ADD_FAILURE() << "no error: " << config;
    return "";
}

const char* kConfigs[] = {
    R"({"quant_method":"gptq","bits":4,"group_size":128,"desc_act":false,"sym":true,
        "checkpoint_format":"gptq","format":"gptq","pack_dtype":"int32",
        "dynamic":{"+:.*down":{"bits":8,"group_size":64,"sym":false,"desc_act":false}}})",
    R"({"quant_method":"awq","bits":4,"group_size":128,"zero_point":true,"version":"gemm"})",
    R"({"quant_method":"auto-round","bits":4,"group_size":128,"sym":true,"data_type":"int",
        "packing_format":"auto_round:auto_gptq","act_bits":16,
        "extra_config":{".*down.*":{"bits":8,"group_size":32,"sym":false,"data_type":"int"}}})"};

/// Every value of `config` that is none of an object's own, by path.
void visit(Json& value, const std::function<void(Json& place, const std::string& key)>& with) {
    for (auto& [key, member] : value.items()) {
        if (key == "quant_method") continue;
        with(member, key);
        if (member.is_object()) visit(member, with);
    }
}

std::vector<Json> hostile_values() {
    return {Json(),
            Json(true),
            Json(0),
            Json(-1),
            Json(-2),
            Json(1),
            Json(9),
            Json(1e300),
            Json(4.5),
            Json(INT64_MAX),
            Json(INT64_MIN),
            Json(UINT64_MAX),
            Json(""),
            Json("4"),
            Json(std::string(100000, 'x')),
            Json(std::string(3, '\0')),
            Json::array(),
            Json::array({1, 2}),
            Json::object(),
            Json::object({{"(", Json::object()}})};
}

// Whatever one value is replaced with, the config is served or refused with an error of ours that
// names the file; a value of the wrong type is never served.
TEST(QweightConfigs, OneValueReplaced) {
    int refused = 0, served = 0;
    for (const char* text : kConfigs) {
        Json config = Json::parse(text);
        visit(config, [&](Json& place, const std::string& key) {
            const Json kept = place;
            for (const Json& value : hostile_values()) {
                place = value;
                try {
                    make(config);
                    ++served;
                    EXPECT_TRUE(value.is_null() || value.type() == kept.type() ||
                                (value.is_number_integer() && kept.is_number_integer()))
                        << key << " " << describe_json(value);
                } catch (const Error& e) {
                    ++refused;
                    EXPECT_TRUE(e.code() == ErrorCode::kBadContent ||
                                e.code() == ErrorCode::kUnsupported);
                    const std::string what = e.what();
                    EXPECT_NE(what.find(kFile), std::string::npos) << what;
                    EXPECT_TRUE(what.find(key) != std::string::npos || value.is_null()) << what;
                    EXPECT_LT(what.size(), 1000u);
                }
            }
            place = kept;
        });
        EXPECT_NO_THROW(make(config));
    }
    EXPECT_GT(refused, 300);
    EXPECT_GT(served, 30);
}

TEST(QweightConfigs, KeysThatMustBeThere) {
    for (const char* key : {"bits", "group_size"})
        for (const int which : {0, 1}) {
            Json config = Json::parse(kConfigs[which]);
            config.erase(key);
            EXPECT_NE(refusal(config, ErrorCode::kBadContent).find(key), std::string::npos);
        }
    for (const char* text : kConfigs) {
        Json config = Json::parse(text);
        for (const char* key :
             {"sym", "desc_act", "dynamic", "checkpoint_format", "format", "zero_point", "version",
              "pack_dtype", "packing_format", "extra_config", "data_type", "act_bits"})
            config.erase(key);
        config["unknown"] = {{"nested", Json::array({1, "x"})}};
        EXPECT_NO_THROW(make(config));
    }
    EXPECT_NO_THROW(make(Json::parse(R"({"quant_method":"auto-round"})")));
}

TEST(QweightConfigs, RefusedByName) {
    const auto refuse = [](int which, const char* key, const Json& value,
                           const std::vector<std::string>& named) {
        Json config = Json::parse(kConfigs[which]);
        config[key] = value;
        const std::string what = refusal(config, ErrorCode::kUnsupported);
        for (const std::string& name : named)
            EXPECT_NE(what.find(name), std::string::npos) << name << " in " << what;
    };
    refuse(0, "checkpoint_format", "bitblas", {"bitblas", "gptq_v2"});
    refuse(0, "pack_dtype", "int64", {"int64", "int32"});
    for (const char* version : {"gemv", "gemv_fast", "llm-awq"})
        refuse(1, "version", version, {version, "gemm"});
    refuse(1, "bits", 8, {"bits", "4", "8"});
    for (const char* packing : {"llm_compressor", "auto_round:llm_compressor", "auto_round:fp8",
                                "auto_round:nv_fp4", "auto_round:mx_fp4"})
        refuse(2, "packing_format", packing, {packing, "auto_round:auto_awq"});
    for (const char* type : {"nv_fp", "mx_fp", "fp8"}) refuse(2, "data_type", type, {type, "int"});
    refuse(2, "act_bits", 8, {"act_bits", "8"});
    refuse(2, "bits", 5, {"bits", "5"});
    refuse(2, "extra_config", Json::parse(R"({"a":{"bits":8,"data_type":"fp8"}})"), {"fp8"});
    refuse(2, "extra_config", Json::parse(R"({"a":{"act_bits":8}})"), {"act_bits"});
}

TEST(QweightConfigs, Patterns) {
    Json config = Json::parse(kConfigs[0]);
    config["dynamic"] = {{"+:(unclosed", Json::object()}};
    EXPECT_NE(refusal(config, ErrorCode::kBadContent).find("(unclosed"), std::string::npos);
    // Exponential for a backtracking matcher: refused, not waited for.
    config["dynamic"] = {{"+:(.+)+[.]$", Json::object()}};
    const auto costly = make(config);
    test::MemoryTensors tensors;
    const std::string stem = "model.layers.0.mlp.gate_proj_of_a_rather_long_name_indeed";
    tensors.all[stem + ".qweight"] = test::tensor("I32", {1, 8}, std::vector<uint32_t>(8));
    try {
        costly->describe(test::matrix_source(stem, 8, 8), tensors);
        ADD_FAILURE() << "no error";
    } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("dynamic"), std::string::npos) << e.what();
    }
    Json many = Json::object();
    for (int i = 0; i < 5000; ++i) many["m" + std::to_string(i)] = Json::object();
    config["dynamic"] = many;
    EXPECT_NE(refusal(config, ErrorCode::kUnsupported).find("dynamic"), std::string::npos);
}

// Formats whose tensors another format keeps.
TEST(QweightConfigs, MarlinUnderOtherNames) {
    for (const char* text :
         {R"({"quant_method":"gptq","bits":4,"group_size":128,"checkpoint_format":"marlin"})",
          R"({"quant_method":"gptq","bits":4,"group_size":-1,"is_marlin_format":true})",
          R"({"quant_method":"awq","w_bit":4,"q_group_size":128,"version":"Marlin"})"}) {
        EXPECT_TRUE(marlin_format().claims(Json::parse(text))) << text;
        EXPECT_STREQ(marlin_format().from_config(Json::parse(text), "f")->name(), "marlin");
    }
    for (const char* text : {R"({"quant_method":"gptq","checkpoint_format":"gptq"})",
                             R"({"quant_method":7,"checkpoint_format":"marlin"})",
                             R"({"quant_method":"awq","checkpoint_format":"marlin"})", "{}"})
        EXPECT_FALSE(marlin_format().claims(Json::parse(text))) << text;
}

TEST(QweightConfigs, RegistryListsThem) {
    const QuantizationRegistry registry = QuantizationRegistry::built_in();
    for (const char* name : {"none", "gptq", "awq", "auto-round", "inc", "intel/auto-round",
                             "marlin", "compressed-tensors", "hqq"}) {
        ASSERT_NE(registry.find(name), nullptr) << name;
        EXPECT_FALSE(registry.find(name)->encodings.empty()) << name;
    }
    EXPECT_EQ(registry.find("gptq")->config_files,
              std::vector<std::string>{"quantize_config.json"});
    EXPECT_EQ(registry.find("awq")->config_files, std::vector<std::string>{"quant_config.json"});
    EXPECT_EQ(registry.find("auto-round")->config_files,
              std::vector<std::string>{"quantization_config.json"});
}

}  // namespace
}  // namespace conclave::quant
