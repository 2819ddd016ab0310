// How an input row becomes what is multiplied with a quantized matrix: vocabulary, and the policy
// of --activations. The arithmetic is in quant/quantize_row.h.
#pragma once
#include <cstdint>
#include <string>

namespace conclave::quant {

/// --activations: how inputs of matrices are rounded before use. auto: as the format says, else as
/// choose_activation_rule() does.
enum class Activations : uint8_t { kAuto, kF32, kBF16, kInt8 };
const char* activations_name(Activations a);  ///< "auto", "f32", "bf16", "int8"

/// The rounded type of an input.
enum class ActivationCode : uint8_t { kF32, kBF16, kInt8, kE4M3, kE2M1 };

/// Where the scale s of a row, or of a group of its columns, comes from. Arithmetic is f32; amax is
/// max|x| over the row or group.
enum class ScaleRule : uint8_t {
    kNone,    ///< kF32, kBF16: not scaled
    kBlocks,  ///< kInt8: amax / 127 of each 32 columns; blocks begin anew with the weights' groups
    kStatic,  ///< `scale` (and `zero`, kInt8), calibrated
    kAbsMax,  ///< max(amax / top, least)
    /// kInt8, whole rows: code = rne(x * (top / amax)), value (code * amax) * f32(1 / top).
    kAmaxTimes,
    kMinMax,  ///< kInt8, whole rows: s = (max - min) / 255, zero = rne(-128 - min / s), any integer
    kCeilPow2,  ///< 2^ceil(log2(max(amax, least) / top)): ModelOpt's MXFP8, DeepSeek's ue8m0
    /// 2^(floor(log2(a)) - top), a: amax with the bits 0x200000 added to its pattern (a mantissa
    /// from 1.75 on rounds up): OCP MX as compressed-tensors and Quark write it. top: the element
    /// type's largest exponent, 2 for E2M1, 8 for E4M3.
    kEvenPow2,
    /// NVFP4, ModelOpt; g = 1 / scale: b = e4m3(g * amax / 6), code = e2m1(x * g / b), value
    /// code * (b * scale).
    kE4M3Times,
    /// NVFP4, compressed-tensors; g = scale: s = e4m3(g * amax / 6) / g, code = e2m1(x * (1 / s)),
    /// value code * s.
    kE4M3Over,
};

/// value = (code - zero) * s with code = the rounded x / s + zero, ties to even, clamped to the
/// type's range (int8: -128 .. 127). A row or group of zeros gives zeros. Where an x is not finite,
/// its row (group, block) is NaN and no other.
struct ActivationRule {
    ActivationCode code = ActivationCode::kF32;
    ScaleRule scale_rule = ScaleRule::kNone;
    /// Columns that share a dynamic scale, counted from the first of the whole logical row, however
    /// it is cut over ranks; 0: all.
    int64_t group = 0;
    float top = 0;             ///< see ScaleRule: 448, 127, 127.5 ...
    float least = 0;           ///< the smallest scale (kAbsMax) or amax (kCeilPow2)
    float scale = 0;           ///< kStatic; of kE4M3Times and kE4M3Over the global one
    float zero = 0;            ///< kStatic: an integer
    bool reciprocal = false;   ///< x * f32(1 / s) instead of x / s
    bool zero_inside = false;  ///< rne(x / s + zero) instead of rne(x / s) + zero
    /// kAmaxTimes; above 0: columns with an |x| >= outlier stay as they are, in f32. Other numbers
    /// make up amax, those of the row in such columns that are smaller themselves among them.
    float outlier = 0;
    /// Columns with an outlier in any row of the batch that a matrix multiplies at once; else in
    /// the row itself, so that a row does not depend on what else is in the batch.
    bool batch = false;

    bool operator==(const ActivationRule&) const = default;
    /// The scale is made from the row itself, over columns that may be of several ranks.
    bool dynamic() const {
        return scale_rule == ScaleRule::kAbsMax || scale_rule == ScaleRule::kAmaxTimes ||
               scale_rule == ScaleRule::kMinMax || scale_rule == ScaleRule::kCeilPow2 ||
               scale_rule == ScaleRule::kEvenPow2 || scale_rule == ScaleRule::kE4M3Times ||
               scale_rule == ScaleRule::kE4M3Over;
    }
    /// "f32", "bf16", "int8", "int8 per token", "fp8 static", "fp8 per 128", "fp4 per 16",
    /// "int8 per token, outliers f32" ...
    std::string to_string() const;
};

constexpr ActivationRule kF32Input{};
constexpr ActivationRule kBF16Input{.code = ActivationCode::kBF16};
/// The engine's own rule.
constexpr ActivationRule kInt8Input{.code = ActivationCode::kInt8,
                                    .scale_rule = ScaleRule::kBlocks};

}  // namespace conclave::quant
