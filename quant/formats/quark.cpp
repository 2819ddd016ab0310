// AMD Quark: fp8, int8, OCP MX fp4 and fp6, NVFP4, int4 and uint4.
#include "quant/formats/float_formats.h"
#include "quant/formats/formats.h"
#include "quant/formats/int_codec.h"
#include "quant/formats/quark_config.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

[[noreturn]] void refuse(const char* what, const std::string& tensor, const std::string& found) {
    throw Error(ErrorCode::kUnsupported, what).tensor(tensor).found(found);
}

/// Whose scales lie as the scheme says.
Encoding grid_of(const QuarkTensor& t, Encoding e) {
    e.group = t.scheme == QuarkScheme::kGroup   ? t.group
              : t.scheme == QuarkScheme::kBlock ? t.block_cols
                                                : 0;
    e.group_rows = t.scheme == QuarkScheme::kTensor  ? 0
                   : t.scheme == QuarkScheme::kBlock ? t.block_rows
                                                     : 1;
    return e;
}

StoredMatrix describe_fp6(const QuarkTensor& t, const MatrixSource& source,
                          const TensorLookup& tensors, const std::string& scales) {
    const std::string codes = weight_name(source);
    expect_tensor(tensors, codes, {source.stored_n, ceil_div(source.k * 3, 4)}, "U8");
    Encoding e = grid_of(t, fp8_encoding(FactorType::kNone, 0, 1));
    expect_scales(source, tensors, scales, ScaleKind::kE8M0, e);
    return scaled_matrix(source, e, codes, scales,
                         t.dtype == "fp6_e3m2" ? CodeStorage::kE3M2 : CodeStorage::kE2M3);
}

StoredMatrix describe_int8(const QuarkTensor& t, const MatrixSource& source,
                           const TensorLookup& tensors, const std::string& scales) {
    expect_tensor(tensors, weight_name(source), {source.stored_n, source.k}, "I8");
    if (t.scheme == QuarkScheme::kBlock) refuse("blocks of int8 are not served", scales, "blocks");
    Encoding e;
    e.code = CodeType::kU8;
    e.bits = 8;
    e = grid_of(t, e);
    expect_scales(source, tensors, scales, ScaleKind::kFloat, e);
    IntStorage storage;
    storage.bits = 8;
    storage.bytes = true;
    if (t.symmetric) {
        e.zero_point = 128;
    } else {
        e.zero = FactorType::kU8;
        // Laid out as the scales are.
        const std::string zeros = source.stem + ".weight_zero_point";
        expect_tensor(tensors, zeros, tensors.header(scales)->shape, "I8");
    }
    if (e.group >= source.k) e.group = 0;
    return int_matrix(source, e, storage, {".weight", ".weight_scale", ".weight_zero_point"});
}

/// Words along the rows, [in, out / 8]; scales and zeros [groups, ...].
StoredMatrix describe_int4(const QuarkTensor& t, bool reordered, const MatrixSource& source,
                           const TensorLookup& tensors, const std::string& scales) {
    if (t.scheme != QuarkScheme::kGroup)
        refuse("4-bit integers of quark are served in groups only", weight_name(source), "");
    const bool is_signed = t.dtype == "int4";
    IntStorage storage;
    storage.packing = reordered ? Packing::kAwq : Packing::kStream;
    storage.words_along_n = storage.transposed = storage.scales_transposed = true;
    storage.is_signed = is_signed;
    const int64_t words = packed_words(storage.packing, 4, source.stored_n);
    const int64_t groups = group_count(source.k, t.group);
    expect_tensor(tensors, weight_name(source), {source.k, words}, "I32");
    Encoding e;
    e.code = CodeType::kU4;
    e.bits = 4;
    e.group = t.group < source.k ? t.group : 0;
    e.scale = float_factor(scales, expect_tensor(tensors, scales, {groups, source.stored_n}));
    const std::string zeros = source.stem + ".weight_zero_point";
    if (is_signed && !tensors.header(zeros)) {
        e.zero_point = 8;
    } else {
        e.zero = FactorType::kU8;
        expect_tensor(tensors, zeros, {groups, words}, "I32");
    }
    return int_matrix(source, e, storage, {".weight", ".weight_scale", ".weight_zero_point"});
}

class QuarkConfig final : public QuantizationConfig {
  public:
    QuarkConfig(const Json& config, const std::string& file) : rules_(config, file) {}
    const char* name() const override { return "quark"; }

    std::optional<StoredMatrix> describe(const MatrixSource& source,
                                         const TensorLookup& tensors) const override {
        const auto weight = tensors.header(weight_name(source));
        if (!weight) return std::nullopt;
        if (source.bare) return describe_plain(source, tensors);
        if (tensors.header(source.stem + ".input_rotation"))
            refuse("rotated inputs of quark are not served", source.stem + ".input_rotation", "");
        std::optional<StoredMatrix> m;
        if (is_float_dtype(weight->dtype)) {
            m = describe_plain(source, tensors);
            add_companions(*m, tensors, source.stem, {".weight_scale", ".weight_scale_2"});
        } else {
            m = describe_quantized(source, tensors);
        }
        if (m->pieces.size() < 3) add_companions(*m, tensors, source.stem, {".weight_zero_point"});
        add_companions(*m, tensors, source.stem,
                       {".input_scale", ".input_scale_2", ".input_zero_point"});
        add_cache_scales(*m, tensors);
        return m;
    }

  private:
    StoredMatrix describe_quantized(const MatrixSource& source, const TensorLookup& tensors) const {
        const QuarkLayer& layer = rules_.find(source.stem);
        const std::string codes = weight_name(source), scales = source.stem + ".weight_scale";
        if (!layer.weight)
            throw Error(ErrorCode::kBadContent,
                        "tensor is quantized, but the config has no weight settings for it")
                .tensor(codes);
        const QuarkTensor& t = *layer.weight;
        if (!t.refusal.empty()) refuse("these weights of quark are not served", codes, t.refusal);
        StoredMatrix m = describe_weight(t, source, tensors, codes, scales);
        if (layer.input) m.activation = activation(*layer.input, source, tensors);
        return m;
    }

    StoredMatrix describe_weight(const QuarkTensor& t, const MatrixSource& source,
                                 const TensorLookup& tensors, const std::string& codes,
                                 const std::string& scales) const {
        if (t.dtype == "fp8_e4m3")
            return fp8_matrix(source, tensors, scales, ScaleKind::kFloatOrE8M0,
                              grid_of(t, fp8_encoding(FactorType::kNone, 0, 0)));
        if (t.dtype == "int8") return describe_int8(t, source, tensors, scales);
        if (t.dtype == "int4" || t.dtype == "uint4")
            return describe_int4(t, rules_.reordered(), source, tensors, scales);
        if (t.scheme != QuarkScheme::kGroup)
            refuse("fp4 and fp6 of quark are served in groups only", codes, t.dtype);
        if (t.dtype == "fp4") return fp4_matrix(source, tensors, scales, ScaleKind::kE8M0, t.group);
        if (t.dtype == "nvfp4") return nvfp4_matrix(source, tensors, scales, t.group);
        return describe_fp6(t, source, tensors, scales);
    }

    static std::optional<ActivationRule> activation(const QuarkTensor& t,
                                                    const MatrixSource& source,
                                                    const TensorLookup& tensors) {
        const std::string codes = weight_name(source);
        if (!t.refusal.empty()) refuse("these inputs of quark are not served", codes, t.refusal);
        const bool group = t.scheme == QuarkScheme::kGroup;
        // No fp6 inputs here: those matrices are weight-only.
        if (t.dtype.starts_with("fp6")) return std::nullopt;
        if (t.dtype == "fp4" && t.dynamic && group && t.powers)
            return ActivationRule{.code = ActivationCode::kE2M1,
                                  .scale_rule = ScaleRule::kEvenPow2,
                                  .group = t.group,
                                  .top = 2};
        if (t.dtype == "nvfp4" && group && t.group == 16)
            return static_rule(nvfp4_input(),
                               input_scale(source, tensors,
                                           first_tensor(tensors, source.stem,
                                                        {".input_scale_2", ".input_scale"})));
        if (t.dtype == "fp8_e4m3" && t.dynamic && group && t.powers)
            return ActivationRule{.code = ActivationCode::kE4M3,
                                  .scale_rule = ScaleRule::kEvenPow2,
                                  .group = t.group,
                                  .top = 8};
        if (t.dtype == "fp8_e4m3" && t.dynamic && !t.powers)
            return group ? group_fp8_input(t.group, false) : token_fp8_input();
        if (t.dtype == "fp8_e4m3" && t.scheme == QuarkScheme::kTensor)
            return static_rule(static_fp8_input(),
                               input_scale(source, tensors, source.stem + ".input_scale"));
        if (t.dtype == "int8" && !group && !(t.dynamic && t.powers))
            return int8_input(t, source, tensors);
        refuse("these inputs of quark are not served", codes,
               t.dtype + (t.dynamic ? ", dynamic" : ", static") + (group ? ", in groups" : "") +
                   ", scale_format " + (t.powers ? "e8m0" : "float32"));
    }

    static std::optional<ActivationRule> int8_input(const QuarkTensor& t,
                                                    const MatrixSource& source,
                                                    const TensorLookup& tensors) {
        ActivationRule rule{.code = ActivationCode::kInt8};
        if (t.dynamic) {
            rule.scale_rule = t.symmetric ? ScaleRule::kAbsMax : ScaleRule::kMinMax;
            rule.top = t.symmetric ? 127 : 0;
            return rule;
        }
        rule.scale_rule = ScaleRule::kStatic;
        const auto scale = input_scale(source, tensors, source.stem + ".input_scale");
        const std::string zero = source.stem + ".input_zero_point";
        if (scale && (!t.symmetric || tensors.header(zero)))
            rule.zero = input_zero_point(tensors, zero);
        rule.zero_inside = true;
        return static_rule(rule, scale);
    }

    QuarkConfigRules rules_;
};

}  // namespace

QuantizationFormat quark_format() {
    const auto integers = [](int bits, FactorType zero, int64_t group, int64_t group_rows) {
        Encoding e;
        e.code = bits == 4 ? CodeType::kU4 : CodeType::kU8;
        e.bits = bits;
        e.scale = FactorType::kBF16;
        e.zero = zero;
        e.zero_point = zero == FactorType::kNone ? 1 << (bits - 1) : 0;
        e.group = group;
        e.group_rows = group_rows;
        return e;
    };
    return {"quark",
            {},
            [](const Json& config, const std::string& file) {
                return std::make_unique<QuarkConfig>(config, file);
            },
            {fp8_encoding(FactorType::kBF16, 0, 0), fp8_encoding(FactorType::kBF16, 0, 1),
             fp8_encoding(FactorType::kBF16, 128, 128), fp8_encoding(FactorType::kE8M0, 32, 1),
             fp4_encoding(FactorType::kE8M0, 32), fp4_encoding(FactorType::kE4M3, 16),
             integers(8, FactorType::kNone, 0, 0), integers(8, FactorType::kNone, 0, 1),
             integers(4, FactorType::kNone, 128, 1), integers(4, FactorType::kU8, 128, 1)}};
}

}  // namespace conclave::quant
