#include "quant/simd/x86_avx2.h"

#include "quant/kernels/vector_ops/generic.h"
#include "quant/kernels/vector_ops/tables.h"

namespace conclave::quant {

constinit const VectorOps vector_ops_avx2 = make_vector_ops<Avx2>(Isa::kAvx2, fused_axpy<Avx2>);

}  // namespace conclave::quant
