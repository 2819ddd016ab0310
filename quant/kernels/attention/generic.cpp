#include "quant/kernels/attention/generic.h"

#include "quant/simd/generic.h"

namespace conclave::quant {

void attention_generic(const AttentionCall& call) { attend<Generic>(call); }

size_t attention_scratch_bytes(int64_t heads, int64_t, int64_t dv) {
    return static_cast<size_t>(heads * HeadState::floats(dv)) * sizeof(float);
}

AttentionFn attention_kernel([[maybe_unused]] CpuFeatures cpu) {
#if defined(__x86_64__)
    if (cpu.has(Isa::kAvx512)) return attention_avx512;
    if (cpu.has(Isa::kAvx2)) return attention_avx2;
#endif
    return attention_generic;
}

}  // namespace conclave::quant
