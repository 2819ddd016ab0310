#include "quant/formats/float_formats.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "quant/formats/tensors.h"
#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

constexpr float kTopE4M3 = 448;

std::vector<int64_t> with_lead(const MatrixSource& source, std::vector<int64_t> shape) {
    if (source.lead >= 0) shape.insert(shape.begin(), source.lead_count);
    return shape;
}

bool has_kind(FactorType type, ScaleKind kind) {
    const bool number =
        type == FactorType::kF32 || type == FactorType::kF16 || type == FactorType::kBF16;
    switch (kind) {
        case ScaleKind::kFloat:
            return number;
        case ScaleKind::kFloatOrE8M0:
            return number || type == FactorType::kE8M0;
        case ScaleKind::kE8M0:
            return type == FactorType::kE8M0;
        case ScaleKind::kE4M3:
            return type == FactorType::kE4M3;
    }
    return false;
}

const char* kind_text(ScaleKind kind) {
    switch (kind) {
        case ScaleKind::kFloat:
            return "F32, F16 or BF16";
        case ScaleKind::kFloatOrE8M0:
            return "F32, F16, BF16, F8_E8M0 or U8";
        case ScaleKind::kE8M0:
            return "F8_E8M0 or U8";
        case ScaleKind::kE4M3:
            return "F8_E4M3";
    }
    return "";
}

}  // namespace

bool is_float_dtype(const std::string& dtype) {
    return dtype == "BF16" || dtype == "F16" || dtype == "F32";
}

std::string weight_name(const MatrixSource& source) {
    return source.bare ? source.stem : source.stem + ".weight";
}

std::string first_tensor(const TensorLookup& tensors, const std::string& stem,
                         std::initializer_list<const char*> suffixes) {
    for (const char* suffix : suffixes)
        if (tensors.header(stem + suffix)) return stem + suffix;
    return stem + *suffixes.begin();
}

void set_scale_span(const MatrixSource& source, const TensorLookup& tensors,
                    const std::string& scales, ScaleSpan span, Encoding& encoding) {
    if (span == ScaleSpan::kEither) {
        const auto header = tensors.header(scales);
        const size_t lead = source.lead >= 0 ? 1 : 0;
        const bool one =
            !header || (header->shape.size() >= lead &&
                        std::all_of(header->shape.begin() + static_cast<std::ptrdiff_t>(lead),
                                    header->shape.end(), [](int64_t axis) { return axis == 1; }));
        span = one ? ScaleSpan::kMatrix : ScaleSpan::kRows;
    }
    encoding.group = 0;
    encoding.group_rows = span == ScaleSpan::kMatrix ? 0 : 1;
}

void expect_scales(const MatrixSource& source, const TensorLookup& tensors,
                   const std::string& scales, ScaleKind kind, Encoding& encoding) {
    expect_scale_grid(source, tensors, scales, encoding);
    if (has_kind(encoding.scale, kind)) return;
    const auto header = tensors.header(scales);
    throw Error(ErrorCode::kUnsupported, "tensor has a type that this format does not store")
        .tensor(scales)
        .expected(kind_text(kind))
        .found(header ? header->dtype : "");
}

Encoding fp8_encoding(FactorType scale, int64_t group, int64_t group_rows) {
    Encoding e;
    e.code = CodeType::kE4M3;
    e.scale = scale;
    e.group = group;
    e.group_rows = group_rows;
    return e;
}

Encoding fp4_encoding(FactorType scale, int64_t group) {
    Encoding e;
    e.code = CodeType::kT4;
    e.levels = fp4_codebook();
    e.scale = scale;
    e.group = group;
    return e;
}

StoredMatrix fp8_matrix(const MatrixSource& source, const TensorLookup& tensors,
                        const std::string& scales, ScaleKind kind, Encoding grid) {
    const std::string codes = weight_name(source);
    expect_tensor(tensors, codes, with_lead(source, {source.stored_n, source.k}), "F8_E4M3");
    expect_scales(source, tensors, scales, kind, grid);
    return scaled_matrix(source, grid, codes, scales);
}

StoredMatrix fp4_matrix(const MatrixSource& source, const TensorLookup& tensors,
                        const std::string& scales, ScaleKind kind, int64_t group) {
    const std::string codes = weight_name(source);
    expect_tensor(tensors, codes, with_lead(source, {source.stored_n, ceil_div(source.k, 2)}),
                  "U8");
    Encoding e = fp4_encoding(FactorType::kNone, group);
    expect_scales(source, tensors, scales, kind, e);
    return scaled_matrix(source, e, codes, scales);
}

StoredMatrix nvfp4_matrix(const MatrixSource& source, const TensorLookup& tensors,
                          const std::string& scales, int64_t group) {
    StoredMatrix m = fp4_matrix(source, tensors, scales, ScaleKind::kE4M3, group);
    const std::string second = source.stem + ".weight_scale_2";
    const auto global = read_scalar(tensors, second);
    if (!global || !std::isfinite(*global))
        throw Error(ErrorCode::kBadContent, "the scale of a matrix is missing or no number")
            .tensor(second)
            .expected("one number")
            .found(global ? std::to_string(*global) : "no such tensor");
    m.global.multiplier = *global;
    m.companions.push_back(second);
    return m;
}

std::optional<float> input_scale(const MatrixSource& source, const TensorLookup& tensors,
                                 const std::string& name) {
    const auto scale = read_scalar(tensors, name);
    if (scale && *scale > 0 && std::isfinite(*scale)) return scale;
    if (source.stem.find(".experts.") != std::string::npos) return std::nullopt;
    throw Error(ErrorCode::kBadContent, "the scale of a layer's input is missing or not positive")
        .tensor(name)
        .expected("a number above 0")
        .found(scale ? std::to_string(*scale) : "no such tensor");
}

std::optional<ActivationRule> static_rule(ActivationRule rule, std::optional<float> scale) {
    if (!scale) return std::nullopt;
    rule.scale = *scale;
    return rule;
}

float input_zero_point(const TensorLookup& tensors, const std::string& name) {
    const auto zero = read_scalar(tensors, name);
    if (zero && *zero >= -128 && *zero <= 127 && *zero == std::nearbyint(*zero)) return *zero;
    throw Error(ErrorCode::kBadContent, "the zero point of a layer's input is no int8")
        .tensor(name)
        .expected("a whole number from -128 to 127")
        .found(zero ? std::to_string(*zero) : "no such tensor");
}

ActivationRule static_fp8_input() {
    return {.code = ActivationCode::kE4M3, .scale_rule = ScaleRule::kStatic};
}

ActivationRule token_fp8_input() {
    return {.code = ActivationCode::kE4M3,
            .scale_rule = ScaleRule::kAbsMax,
            .top = kTopE4M3,
            .least = 1.0f / (kTopE4M3 * 512)};
}

ActivationRule group_fp8_input(int64_t group, bool powers_of_two) {
    constexpr float kLeastMax = 1e-10f;
    return {.code = ActivationCode::kE4M3,
            .scale_rule = powers_of_two ? ScaleRule::kCeilPow2 : ScaleRule::kAbsMax,
            .group = group,
            .top = kTopE4M3,
            .least = powers_of_two ? kLeastMax : kLeastMax / kTopE4M3};
}

ActivationRule nvfp4_input() {
    return {.code = ActivationCode::kE2M1, .scale_rule = ScaleRule::kE4M3Times, .group = 16};
}

std::vector<float> read_factors(const TensorLookup& tensors, const std::string& name,
                                FactorType type, int64_t count) {
    const auto bytes = static_cast<size_t>(count * factor_bytes(type));
    const std::vector<std::byte> raw = tensors.read(name, bytes);
    if (raw.size() != bytes)
        throw Error(ErrorCode::kBadContent, "tensor has the wrong size")
            .tensor(name)
            .expected(std::to_string(bytes) + " bytes")
            .found(std::to_string(raw.size()) + " bytes");
    std::vector<float> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) {
        values[i] = read_factor(type, raw.data() + i * static_cast<size_t>(factor_bytes(type)));
        if (std::isfinite(values[i])) continue;
        throw Error(ErrorCode::kBadContent, "a scale is not a finite number")
            .tensor(name)
            .found(std::to_string(values[i]) + " for column " + std::to_string(i));
    }
    return values;
}

void add_cache_scales(StoredMatrix& matrix, const TensorLookup& tensors) {
    const std::string& stem = matrix.source.stem;
    const size_t dot = stem.rfind('.');
    if (dot == std::string::npos) return;
    const std::string leaf = stem.substr(dot), parent = stem.substr(0, dot);
    const bool q = leaf == ".q_proj", k = leaf == ".k_proj", v = leaf == ".v_proj";
    if (!q && !k && !v && leaf != ".qkv_proj") return;
    add_companions(matrix, tensors, stem,
                   {".output_scale", ".k_scale", ".v_scale", ".k_bias", ".v_bias"});
    // Those of a module that has its parts in one matrix, or names the scales itself.
    if (!k && !v) add_companions(matrix, tensors, parent, {".q_scale", ".prob_output_scale"});
    if (!q && !v) add_companions(matrix, tensors, parent, {".k_scale", ".kv_scale"});
    if (!q && !k) add_companions(matrix, tensors, parent, {".v_scale"});
}

}  // namespace conclave::quant
