// Step type of the bf16 x bf16 kernel: two columns of W times two elements of x. Dot::dot is the
// instruction, or in tests a stand-in for CPUs that lack it. Needs the AVX-512 flags.
#pragma once
#include <cstring>

#include "quant/simd/x86_avx512.h"

namespace conclave::quant::panel {
namespace {

template <class Dot>
struct PairStep {
    using Simd = Avx512;
    using V = __m512;
    using W = __m512i;
    static constexpr int64_t kBytes = 64;
    static int64_t steps(int64_t k) { return (k + 1) / 2; }
    static W load(const std::byte* p) { return _mm512_loadu_si512(p); }
    static void keep(std::byte* to, W w) { _mm512_storeu_si512(to, w); }
    static W kept(const std::byte* from) { return _mm512_loadu_si512(from); }
    static V step(V acc, W w, const std::byte* x) {
        int pair;
        std::memcpy(&pair, x, sizeof pair);
        return Dot::dot(acc, w, _mm512_set1_epi32(pair));
    }
};

}  // namespace
}  // namespace conclave::quant::panel
