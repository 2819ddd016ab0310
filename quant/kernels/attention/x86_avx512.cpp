#include "quant/simd/x86_avx512.h"

#include "quant/kernels/attention/generic.h"

namespace conclave::quant {

void attention_avx512(const AttentionCall& call) { attend<Avx512>(call); }

}  // namespace conclave::quant
