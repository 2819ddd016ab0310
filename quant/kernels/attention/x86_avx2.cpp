#include "quant/simd/x86_avx2.h"

#include "quant/kernels/attention/generic.h"

namespace conclave::quant {

void attention_avx2(const AttentionCall& call) { attend<Avx2>(call); }

}  // namespace conclave::quant
