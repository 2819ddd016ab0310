// Row operations between the matrices of a layer, f32 in and out, serial. Every element (or every
// row, for the norms) is computed in one order whatever its place: consistent in the sense of
// deterministic mode. No libm: exp is a polynomial in vector code, tails are masked.
#pragma once
#include <cstdint>

#include "runtime/base/cpu.h"

namespace conclave::quant {

/// How numbers become codes: c = x * times / over, rounded to nearest, ties to even, within the
/// code's range; value (c - zero) * scale. All finite; neither over nor scale is 0.
struct CodeRounding {
    float times = 1, over = 1, scale = 1;
    /// int8: c = round(x * times / over + before) + after, zero = before + after.
    float before = 0, after = 0, zero = 0;
};

/// A type of few mantissa bits m, whose least normal number is `least`.
struct Minifloat {
    float top = 0, least = 0;
    float magic = 0;  ///< 1.5 * 2^(23 - m): adding it times 2^e rounds a number of exponent e
};
constexpr Minifloat kMinifloatE4M3{448, 0x1p-6f, 0x1.8p20f};
constexpr Minifloat kMinifloatE2M1{6, 1, 0x1.8p22f};

struct VectorOps {
    Isa isa;
    /// out[i] = w[i] * (x[i] * rsqrt(mean(x^2) + eps)); out may be x. Exact square root and
    /// division.
    void (*rms_norm)(const float* x, const float* w, float eps, int64_t n, float* out);
    /// out[i] = silu(gate[i]) * up[i], silu(v) = v / (1 + exp(-v)); out may be gate or up.
    void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);
    /// y[i] += x[i].
    void (*add)(const float* x, int64_t n, float* y);
    /// y[i] += a * x[i], multiplied and added with one rounding (fma).
    void (*axpy)(float a, const float* x, int64_t n, float* y);
    /// y[i] = a * x[i].
    void (*scale)(float a, const float* x, int64_t n, float* y);
    /// Half layout (GPT-NeoX): x[j], x[j + half] turn by (cos[j], sin[j]), j < half; in place.
    void (*rope_half)(float* x, const float* cos, const float* sin, int64_t half);
    /// p[i] = exp(x[i] - max) / sum; in place.
    void (*softmax)(float* x, int64_t n);
    /// Rounds to bf16, ties to even, NaN stays NaN; `out` as f32 resp. as bf16 bits.
    void (*round_bf16)(const float* x, int64_t n, float* out);
    void (*to_bf16)(const float* x, int64_t n, uint16_t* out);
    void (*to_f16)(const float* x, int64_t n, uint16_t* out);
    /// One block of the int8 rule, n <= 32: scale = max|x| / 127, q[i] = x[i] * (127 / max|x|)
    /// rounded to nearest even, sum = sum of q. All zero where max|x| < 1e-30. A NaN or infinity
    /// makes scale NaN, and so every product with this block.
    void (*to_int8)(const float* x, int64_t n, int8_t* q, float* scale, float* sum);
    /// bf16 / f16 bits to f32, exact.
    void (*from_bf16)(const uint16_t* x, int64_t n, float* out);
    void (*from_f16)(const uint16_t* x, int64_t n, float* out);
    /// max|x| of each `group` numbers (of the rest, last); infinity where one is not finite.
    void (*group_amax)(const float* x, int64_t n, int64_t group, float* out);
    /// The greatest x and the greatest -x; infinity both where one is not finite, -infinity where
    /// n is 0.
    void (*range)(const float* x, int64_t n, float* most, float* most_negated);
    /// out[i] = what the code of x[i] stands for; out may be x.
    void (*round_int8)(const CodeRounding& r, const float* x, int64_t n, float* out);
    void (*round_minifloat)(const Minifloat& type, const CodeRounding& r, const float* x, int64_t n,
                            float* out);
    /// The codes themselves, and their sum; n <= 2^17.
    void (*code_int8)(const CodeRounding& r, const float* x, int64_t n, int8_t* q, int32_t* sum);
};

/// The best table for a CPU.
const VectorOps& vector_ops(CpuFeatures cpu);

}  // namespace conclave::quant
