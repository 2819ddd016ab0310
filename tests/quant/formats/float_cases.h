// One small matrix of every kind that fp8, modelopt, quark and mxfp4 checkpoints keep.
#pragma once
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "runtime/base/half.h"
#include "tests/quant/formats/memory_tensors.h"

namespace conclave::quant::test {

constexpr int64_t kN = 24, kK = 96;  ///< of every matrix
constexpr const char* kStem = "model.layers.0.q_proj";

inline int64_t width(const std::string& dtype) {
    return dtype == "F32" || dtype == "I32" ? 4 : dtype == "F16" || dtype == "BF16" ? 2 : 1;
}

/// Random, but every scale a small positive number whatever the type; E4M3 codes are no NaN.
inline MemoryTensor random_tensor(const std::string& dtype, std::vector<int64_t> shape,
                                  std::mt19937& rng) {
    int64_t count = 1;
    for (const int64_t axis : shape) count *= axis;
    MemoryTensor t{{dtype, std::move(shape)},
                   std::vector<std::byte>(static_cast<size_t>(count * width(dtype)))};
    for (int64_t i = 0; i < count; ++i) {
        const float v = 0.25f + static_cast<float>(rng() % 64) / 64;
        const uint16_t half = dtype == "F16" ? f32_to_f16(v) : f32_to_bf16(v);
        auto word = static_cast<uint32_t>(rng());
        if (dtype == "F8_E4M3" && (word & 127) == 127) word ^= 1;
        if (dtype == "F8_E8M0") word = 120 + word % 8;
        const void* from = dtype == "F32"      ? static_cast<const void*>(&v)
                           : width(dtype) == 2 ? static_cast<const void*>(&half)
                                               : static_cast<const void*>(&word);
        std::memcpy(t.bytes.data() + i * width(dtype), from, static_cast<size_t>(width(dtype)));
    }
    return t;
}

struct Tensor {
    const char* suffix;
    const char* dtype;
    std::vector<int64_t> shape;
    bool optional = false;
};

struct Case {
    const char* name;
    const char* config;
    std::vector<Tensor> tensors;  ///< of the module kStem, or of 3-D parameters of that name
    const char* encoding;
    const char* rule;  ///< "": none
    bool bare = false;
};

inline const std::vector<Case>& cases() {
    static const std::string quark = R"({"quant_method":"quark","export":{"pack_method":"reorder"},
        "global_quant_config":{"weight":)";
    static std::vector<std::string> kept;
    const auto quark_of = [&](const std::string& weight, const std::string& input) {
        kept.push_back(quark + weight + ",\"input_tensors\":" + input + "}}");
        return kept.back().c_str();
    };
    kept.reserve(16);
    const char* fp8 = R"({"quant_method":"fp8","activation_scheme":"dynamic","fmt":"e4m3",
                          "weight_block_size":[16,64]})";
    const std::string q_fp8 = R"({"dtype":"fp8_e4m3","qscheme":"per_tensor"})";
    const std::string q_mx = R"({"dtype":"fp4","qscheme":"per_group","group_size":32,
        "is_dynamic":true,"scale_format":"e8m0","scale_calculation_mode":"even"})";
    static const std::vector<Case> all = {
        {"fp8 block",
         fp8,
         {{".weight", "F8_E4M3", {kN, kK}}, {".weight_scale_inv", "F32", {2, 2}}},
         "fp8 16x64",
         "fp8 per 64"},
        {"fp8 block, e8m0",
         R"({"quant_method":"fp8","activation_scheme":"dynamic","scale_fmt":"ue8m0",
             "weight_block_size":[128,128]})",
         {{".weight", "F8_E4M3", {kN, kK}}, {".scale", "F8_E8M0", {1, 1}}},
         "fp8 128x128 e8m0",
         "fp8 per 128"},
        {"fp8 with 4-bit experts",
         fp8,
         {{".weight", "U8", {kN, kK / 2}}, {".scale", "F8_E8M0", {kN, 3}}},
         "fp4 g32 e8m0",
         "fp8 per 64"},
        {"fp8 tensor",
         R"({"quant_method":"fp8","activation_scheme":"static"})",
         {{".weight", "F8_E4M3", {kN, kK}},
          {".weight_scale", "BF16", {1}},
          {".input_scale", "F32", {}}},
         "fp8 tensor",
         "fp8 static"},
        {"fp8 channel",
         R"({"quant_method":"fp8","activation_scheme":"dynamic"})",
         {{".weight", "F8_E4M3", {kN, kK}}, {".weight_scale", "F32", {kN, 1}}},
         "fp8 channel",
         "fp8 per token"},
        {"fp8 3-D",
         fp8,
         {{"", "F8_E4M3", {3, kN, kK}}, {"_scales_inv", "F32", {3, 2, 2}}},
         "fp8 16x64",
         "fp8 per 64",
         true},
        {"mxfp4",
         R"({"quant_method":"mxfp4","modules_to_not_convert":["lm_head"]})",
         {{"_blocks", "U8", {3, kN, 3, 16}}, {"_scales", "F8_E8M0", {3, kN, 3}}},
         "fp4 g32 e8m0",
         "",
         true},
        {"modelopt fp8",
         R"({"quant_method":"modelopt","quant_algo":"FP8"})",
         {{".weight", "F8_E4M3", {kN, kK}},
          {".weight_scale", "F32", {}},
          {".input_scale", "F32", {}}},
         "fp8 tensor",
         "fp8 static"},
        {"modelopt channel",
         R"({"quant_method":"modelopt","quant_algo":"FP8_PER_CHANNEL_PER_TOKEN"})",
         {{".weight", "F8_E4M3", {kN, kK}}, {".weight_scale", "F32", {kN}}},
         "fp8 channel",
         "fp8 per token"},
        {"modelopt block",
         R"({"quant_method":"modelopt","quant_algo":"fp8_pb_wo"})",
         {{".weight", "F8_E4M3", {kN, kK}}, {".weight_scale", "F32", {1, 1, 1, 1}}},
         "fp8 128x128",
         ""},
        {"modelopt mxfp8",
         R"({"quant_method":"modelopt","quant_algo":"MXFP8","group_size":32})",
         {{".weight", "F8_E4M3", {kN, kK}}, {".weight_scale", "F8_E8M0", {kN, 3}}},
         "fp8 g32 e8m0",
         "fp8 per 32"},
        {"modelopt nvfp4",
         R"({"quant_method":"modelopt","quant_algo":"NVFP4","group_size":16})",
         {{".weight", "U8", {kN, kK / 2}},
          {".weight_scale", "F8_E4M3", {kN, 6}},
          {".weight_scale_2", "F32", {}},
          {".input_scale", "F32", {}}},
         "fp4 g16 e4m3",
         "fp4 per 16"},
        {"modelopt nvfp4 awq",
         R"({"quant_method":"modelopt","quant_algo":"NVFP4_AWQ"})",
         {{".weight", "U8", {kN, kK / 2}},
          {".weight_scale", "F8_E4M3", {kN, 6}},
          {".weight_scale_2", "F32", {}},
          {".input_scale", "F32", {}},
          {".pre_quant_scale", "BF16", {kK}, true}},
         "fp4 g16 e4m3",
         "fp4 per 16"},
        {"modelopt nvfp4 a16",
         R"({"quant_method":"modelopt","quant_algo":"W4A16_NVFP4"})",
         {{".weight", "U8", {kN, kK / 2}},
          {".weight_scale", "F8_E4M3", {kN, 6}},
          {".weight_scale_2", "F32", {1}}},
         "fp4 g16 e4m3",
         ""},
        {"modelopt nvfp4 fp8",
         R"({"quant_method":"modelopt","quant_algo":"W4A8_NVFP4_FP8"})",
         {{".weight", "U8", {kN, kK / 2}},
          {".weight_scale", "F8_E4M3", {kN, 6}},
          {".weight_scale_2", "F32", {1}},
          {".input_scale", "F32", {}}},
         "fp4 g16 e4m3",
         "fp8 static"},
        {"modelopt int4",
         R"({"quant_method":"modelopt","quant_algo":"W4A16_AWQ","group_size":32,
             "has_zero_point":false})",
         {{".weight", "U8", {kN / 2, kK}},
          {".weight_scale", "F32", {kN, 3}},
          {".pre_quant_scale", "BF16", {kK}, true}},
         "int4 g32",
         ""},
        {"modelopt mixed",
         R"({"quant_method":"modelopt","quant_algo":"MIXED_PRECISION","quantized_layers":{
             "model.layers":{"quant_algo":"OTHER"},
             "model.layers.0":{"quant_algo":"MXFP8","group_size":32}}})",
         {{".weight", "F8_E4M3", {kN, kK}}, {".weight_scale", "F8_E8M0", {kN, 3}}},
         "fp8 g32 e8m0",
         "fp8 per 32"},
        {"quark fp8",
         quark_of(q_fp8, q_fp8),
         {{".weight", "F8_E4M3", {kN, kK}},
          {".weight_scale", "BF16", {}},
          {".input_scale", "BF16", {}}},
         "fp8 tensor",
         "fp8 static"},
        {"quark fp8 channel",
         quark_of(R"({"dtype":"fp8_e4m3","qscheme":"per_channel","ch_axis":0})",
                  R"({"dtype":"fp8_e4m3","qscheme":"per_tensor","is_dynamic":true})"),
         {{".weight", "F8_E4M3", {kN, kK}}, {".weight_scale", "F32", {kN}}},
         "fp8 channel",
         "fp8 per token"},
        {"quark fp8 block",
         quark_of(
             R"({"dtype":"fp8_e4m3","qscheme":"per_block","block_size":[16,64]})",
             R"({"dtype":"fp8_e4m3","qscheme":"per_group","group_size":64,"is_dynamic":true})"),
         {{".weight", "F8_E4M3", {kN, kK}}, {".weight_scale", "F32", {2, 2}}},
         "fp8 16x64",
         "fp8 per 64"},
        {"quark int8",
         quark_of(R"({"dtype":"int8","qscheme":"per_tensor","symmetric":true})",
                  R"({"dtype":"int8","qscheme":"per_tensor","symmetric":true})"),
         {{".weight", "I8", {kN, kK}},
          {".weight_scale", "F32", {}},
          {".weight_zero_point", "I8", {}, true},
          {".input_scale", "F32", {}},
          {".input_zero_point", "I8", {}, true}},
         "int8 tensor",
         "int8 static"},
        {"quark int8 dynamic",
         quark_of(R"({"dtype":"int8","qscheme":"per_channel","symmetric":false})",
                  R"({"dtype":"int8","qscheme":"per_tensor","symmetric":false,"is_dynamic":true})"),
         {{".weight", "I8", {kN, kK}},
          {".weight_scale", "F32", {kN}},
          {".weight_zero_point", "I8", {kN}}},
         "int8 channel asym",
         "int8 per token asym"},
        {"quark fp4",
         quark_of(q_mx, q_mx),
         {{".weight", "U8", {kN, kK / 2}}, {".weight_scale", "F8_E8M0", {kN, 3}}},
         "fp4 g32 e8m0",
         "fp4 per 32"},
        {"quark fp6",
         quark_of(R"({"dtype":"fp6_e2m3","qscheme":"per_group","group_size":32})", "null"),
         {{".weight", "U8", {kN, kK * 3 / 4}}, {".weight_scale", "F8_E8M0", {kN, 3}}},
         "fp8 g32 e8m0",
         ""},
        {"quark nvfp4",
         quark_of(R"([{"dtype":"fp4","qscheme":"per_group","group_size":16},
                      {"dtype":"fp8_e4m3","qscheme":"per_tensor"}])",
                  "null"),
         {{".weight", "U8", {kN, kK / 2}},
          {".weight_scale", "F8_E4M3", {kN, 6}},
          {".weight_scale_2", "F32", {}}},
         "fp4 g16 e4m3",
         ""},
        {"quark int4",
         quark_of(R"({"dtype":"int4","qscheme":"per_group","group_size":32})", "null"),
         {{".weight", "I32", {kK, kN / 8}},
          {".weight_scale", "BF16", {3, kN}},
          {".weight_zero_point", "I32", {3, kN / 8}, true}},
         "int4 g32 asym",
         ""},
        {"quark uint4",
         quark_of(R"({"dtype":"uint4","qscheme":"per_group","group_size":64})", "null"),
         {{".weight", "I32", {kK, kN / 8}},
          {".weight_scale", "BF16", {2, kN}},
          {".weight_zero_point", "I32", {2, kN / 8}}},
         "int4 g64 asym",
         ""},
    };
    return all;
}

}  // namespace conclave::quant::test
