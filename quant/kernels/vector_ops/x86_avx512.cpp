#include "quant/simd/x86_avx512.h"

#include "quant/kernels/vector_ops/generic.h"
#include "quant/kernels/vector_ops/tables.h"

namespace conclave::quant {

constinit const VectorOps vector_ops_avx512 =
    make_vector_ops<Avx512>(Isa::kAvx512, fused_axpy<Avx512>);

}  // namespace conclave::quant
