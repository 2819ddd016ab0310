#include "quant/kernels/vector_ops/generic.h"

#include <cmath>

#include "quant/kernels/vector_ops/tables.h"
#include "quant/simd/generic.h"

namespace conclave::quant {
namespace {

void axpy(float a, const float* x, int64_t n, float* y) {
    for (int64_t i = 0; i < n; ++i) y[i] = std::fma(a, x[i], y[i]);
}

}  // namespace

constinit const VectorOps vector_ops_generic = make_vector_ops<Generic>(Isa::kGeneric, axpy);

const VectorOps& vector_ops([[maybe_unused]] CpuFeatures cpu) {
#if defined(__x86_64__)
    if (cpu.has(Isa::kAvx512)) return vector_ops_avx512;
    if (cpu.has(Isa::kAvx2)) return vector_ops_avx2;
#endif
    return vector_ops_generic;
}

}  // namespace conclave::quant
