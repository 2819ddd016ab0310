#include "quant/kernels/grouped/generic.h"
#include "quant/simd/x86_avx512.h"

namespace conclave::quant::grouped {
namespace {

struct Bytes {
    using Simd = Avx512;
    using Half = __m512i;
    static Half load(const std::byte* p) { return _mm512_loadu_si512(p); }
    static Half low(Half h) { return _mm512_and_si512(h, _mm512_set1_epi8(15)); }
    static Half high(Half h) { return low(_mm512_srli_epi16(h, 4)); }
};

struct Multiply {
    using Bytes = grouped::Bytes;
    using Sum = __m512i;
    static Sum none() { return _mm512_setzero_si512(); }
    static Sum dot(Sum sum, __m512i h, int32_t x) {
        return _mm512_dpbusd_epi32(sum, h, _mm512_set1_epi32(x));
    }
    static __m512 total(Sum sum) { return _mm512_cvtepi32_ps(sum); }
};

// 32 registers: sums and results of 6 rows x 2 panels, and the operands. (Two panels, as a
// broadcast from memory takes as long as two products.)
using Tiles = Tile<6, 2, 1>;

}  // namespace

void grouped_u4_i8_avx512vnni_run(const Work& work) {
    run<Int8<Multiply, CodeType::kU4>, Tiles>(work);
}
void grouped_u8_i8_avx512vnni_run(const Work& work) {
    run<Int8<Multiply, CodeType::kU8>, Tiles>(work);
}

}  // namespace conclave::quant::grouped
