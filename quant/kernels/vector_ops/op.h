// Row operations between the matrices of a layer, f32 in and out, serial. Every element (or every
// row, for the norms) is computed in one order whatever its place: consistent in the sense of
// deterministic mode. No libm: exp is a polynomial in vector code, tails are masked.
#pragma once
#include <cstdint>

#include "runtime/base/cpu.h"

namespace conclave::quant {

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
};

/// The best table for a CPU.
const VectorOps& vector_ops(CpuFeatures cpu);

}  // namespace conclave::quant
