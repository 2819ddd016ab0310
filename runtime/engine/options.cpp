#include "runtime/engine/options.h"

#include <charconv>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"

namespace conclave::engine {

namespace {

/// "int4-g32", "int8": symmetric integers with bf16 scales, per group or per row.
std::optional<quant::Encoding> parse_int_encoding(const std::string& text) {
    if (text.size() < 4 || !text.starts_with("int") || text[3] < '2' || text[3] > '8')
        return std::nullopt;
    quant::Encoding e;
    e.bits = text[3] - '0';
    e.code = e.bits <= 4 ? quant::CodeType::kU4 : quant::CodeType::kU8;
    e.scale = quant::FactorType::kBF16;
    e.zero_point = 1 << (e.bits - 1);
    if (text.size() == 4) return e;
    const char* const end = text.data() + text.size();
    if (!text.substr(4).starts_with("-g")) return std::nullopt;
    const auto [next, failure] = std::from_chars(text.data() + 6, end, e.group);
    if (failure != std::errc() || next != end || e.group < 1 || e.group > (1 << 20))
        return std::nullopt;
    return e;
}

/// The formats of this name as their writers make them by default.
std::optional<quant::Imagined> parse_float_encoding(const std::string& text) {
    using quant::ActivationCode, quant::CodeType, quant::FactorType, quant::ScaleRule;
    const auto encoding = [](CodeType code, FactorType scale, int64_t group) {
        quant::Encoding e;
        e.code = code, e.scale = scale, e.group = group;
        if (code == CodeType::kT4) e.levels = quant::fp4_codebook();
        return e;
    };
    if (text == "w8a8") {
        const quant::ActivationRule per_token{
            .code = ActivationCode::kInt8, .scale_rule = ScaleRule::kAbsMax, .top = 127};
        return quant::Imagined{*parse_int_encoding("int8"), per_token};
    }
    if (text == "fp8") {
        quant::Encoding e = encoding(CodeType::kE4M3, FactorType::kF32, 128);
        e.group_rows = 128;
        return quant::Imagined{e, quant::ActivationRule{.code = ActivationCode::kE4M3,
                                                        .scale_rule = ScaleRule::kAbsMax,
                                                        .group = 128,
                                                        .top = 448}};
    }
    if (text == "mxfp8") return quant::Imagined{encoding(CodeType::kE4M3, FactorType::kE8M0, 32)};
    if (text == "mxfp4") return quant::Imagined{encoding(CodeType::kT4, FactorType::kE8M0, 32)};
    if (text == "nvfp4") return quant::Imagined{encoding(CodeType::kT4, FactorType::kE4M3, 16)};
    return std::nullopt;
}

}  // namespace

quant::Activations parse_activations(const std::string& text) {
    for (const quant::Activations a : {quant::Activations::kAuto, quant::Activations::kF32,
                                       quant::Activations::kBF16, quant::Activations::kInt8})
        if (text == quant::activations_name(a)) return a;
    throw Error(ErrorCode::kUsage, "--activations is not a policy")
        .expected("auto, f32, bf16 or int8")
        .found("'" + text + "'");
}

quant::CodeType parse_kv_dtype(const std::string& text, quant::Activations activations) {
    if (text == "auto")
        return activations == quant::Activations::kF32 ? quant::CodeType::kF32
                                                       : quant::CodeType::kBF16;
    for (const quant::CodeType t :
         {quant::CodeType::kF32, quant::CodeType::kF16, quant::CodeType::kBF16})
        if (text == quant::code_name(t)) return t;
    throw Error(ErrorCode::kUsage, "--kv-cache-dtype is not a type")
        .expected("auto, f32, f16 or bf16")
        .found("'" + text + "'");
}

std::optional<quant::Imagined> parse_dummy(const EngineOptions& o) {
    if (o.load_format != "dummy") return std::nullopt;
    for (const quant::CodeType t :
         {quant::CodeType::kF32, quant::CodeType::kF16, quant::CodeType::kBF16})
        if (o.dummy_dtype == quant::code_name(t)) return quant::Imagined{{t}};
    if (const auto encoding = parse_int_encoding(o.dummy_dtype)) return quant::Imagined{*encoding};
    if (const auto imagined = parse_float_encoding(o.dummy_dtype)) return imagined;
    throw Error(ErrorCode::kUsage, "--dummy-dtype is not a type")
        .expected(
            "bf16, f16, f32, fp8 (blocks, fp8 inputs), mxfp8, mxfp4, nvfp4, w8a8 (int8 inputs), or "
            "int2 .. int8 with a group size or without: int4-g32, int8")
        .found("'" + o.dummy_dtype + "'");
}

void check_options(const EngineOptions& o, int ranks) {
    const auto positive = [](const char* name, int64_t value, int64_t least, int64_t most) {
        if (value < least || value > most)
            throw Error(ErrorCode::kUsage, std::string(name) + " is out of range")
                .expected(fmt::format("{} .. {}", least, most))
                .found(std::to_string(value));
    };
    positive("--max-num-seqs", o.max_num_seqs, 1, 65536);
    positive("--max-num-batched-tokens", o.max_num_batched_tokens, 1, 1 << 20);
    positive("--max-model-len", o.max_model_len, 0, int64_t{1} << 30);
    positive("--kv-cache-tokens", o.kv_cache_tokens, 0, int64_t{1} << 36);
    positive("--threads", o.threads, 0, 4096);
    if (o.tensor_parallel_size != 0 && o.tensor_parallel_size != ranks)
        throw Error(ErrorCode::kUsage,
                    "--tensor-parallel-size must be the number of ranks (there is no data "
                    "parallelism)")
            .expected(std::to_string(ranks))
            .found(std::to_string(o.tensor_parallel_size));
}

}  // namespace conclave::engine
