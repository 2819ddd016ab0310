// One table per instruction set.
#pragma once
#include "quant/kernels/vector_ops/op.h"

namespace conclave::quant {

extern const VectorOps vector_ops_generic;
#if defined(__x86_64__)
extern const VectorOps vector_ops_avx2;
extern const VectorOps vector_ops_avx512;
#endif

}  // namespace conclave::quant
