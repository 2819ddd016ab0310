// compressed-tensors, float weights and the rules for inputs.
#include <cmath>

#include "quant/formats/compressed_tensors_matrix.h"
#include "quant/formats/float_formats.h"
#include "quant/formats/int_codec.h"
#include "quant/formats/scaled_codec.h"
#include "quant/formats/tensors.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

/// The type of the scales must be what the scheme says, for it says what they mean.
void check_scale_type(const std::string& name, const TensorLookup& tensors, const CtArgs& args,
                      FactorType type) {
    const char* expected = "BF16, F16 or F32";
    bool good = type != FactorType::kE4M3 && type != FactorType::kE8M0;
    if (args.strategy == CtStrategy::kTensorGroup) {
        expected = "F8_E4M3";
        good = type == FactorType::kE4M3;
    } else if (args.bits == 4) {
        expected = "U8 or F8_E8M0";
        good = type == FactorType::kE8M0;
    } else if (args.strategy == CtStrategy::kGroup) {
        expected = "BF16, F16, F32, U8 or F8_E8M0";
        good = type != FactorType::kE4M3;
    }
    if (!good)
        throw Error(ErrorCode::kBadContent, "tensor contradicts its config group")
            .tensor(name)
            .expected(expected)
            .found(tensors.header(name)->dtype);
}

std::optional<ActivationRule> static_input(const MatrixSource& source, const TensorLookup& tensors,
                                           const CtArgs& args) {
    const auto scale = input_scale(source, tensors, source.stem + ".input_scale");
    ActivationRule rule{.code = args.is_float ? ActivationCode::kE4M3 : ActivationCode::kInt8,
                        .scale_rule = ScaleRule::kStatic};
    if (scale && !args.symmetric)
        rule.zero = input_zero_point(tensors, source.stem + ".input_zero_point");
    return static_rule(rule, scale);
}

}  // namespace

StoredMatrix describe_ct_floats(const MatrixSource& source, const TensorLookup& tensors,
                                const CtScheme& scheme, bool packed) {
    const CtArgs& args = scheme.weights;
    const std::string codes = source.stem + (packed ? ".weight_packed" : ".weight");
    const std::string scales = source.stem + ".weight_scale";
    if (packed != (args.bits == 4))
        throw Error(ErrorCode::kBadContent, "tensor contradicts its config group")
            .tensor(codes)
            .expected("float weights of " + std::to_string(args.bits) + " bits")
            .found(packed ? "4 bits" : "8 bits");
    expect_tensor(tensors, codes, {source.stored_n, packed ? ceil_div(source.k, 2) : source.k},
                  packed ? "U8" : "F8_E4M3");
    Encoding e;
    e.code = packed ? CodeType::kT4 : CodeType::kE4M3;
    if (packed) e.levels = fp4_codebook();
    const bool whole =
        args.strategy != CtStrategy::kBlock && group_count(source.k, args.columns) == 1;
    e.group = whole ? 0 : args.columns;
    e.group_rows = args.rows;
    expect_scale_grid(source, tensors, scales, e);
    check_scale_type(scales, tensors, args, e.scale);
    StoredMatrix m = scaled_matrix(source, e, codes, scales);
    if (args.strategy != CtStrategy::kTensorGroup) return m;
    const std::string global = source.stem + ".weight_global_scale";
    const auto divisor = read_scalar(tensors, global);
    if (!divisor || !(*divisor > 0) || !std::isfinite(*divisor))
        throw Error(ErrorCode::kBadContent, "the scale of a matrix is missing or not positive")
            .tensor(global)
            .expected("a number above 0")
            .found(divisor ? std::to_string(*divisor) : "no such tensor");
    m.global.divisor = *divisor;
    return m;
}

std::optional<ActivationRule> ct_activation(const MatrixSource& source, const TensorLookup& tensors,
                                            const CtScheme& scheme) {
    if (!scheme.inputs) return std::nullopt;
    const CtArgs& args = *scheme.inputs;
    if (args.strategy == CtStrategy::kTensorGroup) {
        return static_rule({.code = ActivationCode::kE2M1,
                            .scale_rule = ScaleRule::kE4M3Over,
                            .group = args.columns},
                           input_scale(source, tensors, source.stem + ".input_global_scale"));
    }
    if (args.dynamic == CtDynamic::kNo) return static_input(source, tensors, args);
    if (!args.is_float && !args.symmetric)
        return ActivationRule{.code = ActivationCode::kInt8, .scale_rule = ScaleRule::kMinMax};
    if (!args.is_float)
        return ActivationRule{
            .code = ActivationCode::kInt8, .scale_rule = ScaleRule::kAbsMax, .top = 127};
    ActivationRule rule{
        .code = args.bits == 4 ? ActivationCode::kE2M1 : ActivationCode::kE4M3,
        .scale_rule = args.powers ? ScaleRule::kEvenPow2 : ScaleRule::kAbsMax,
        .group = args.columns,
        .top = 448,
        // vLLM's floors: of a token's scale, and of a group's largest magnitude.
        .least = args.columns > 0 ? 1e-10f / 448.0f : 1.0f / (448.0f * 512.0f),
    };
    if (args.powers) {
        rule.top = args.bits == 4 ? 2 : 8;
        rule.least = 0;
    }
    return rule;
}

}  // namespace conclave::quant
