#include "quant/simd/x86_avx512.h"

#include "quant/kernels/grouped/generic.h"

namespace conclave::quant::grouped {
namespace {

/// 4-bit codes: a shift brings each to the bottom of its lane, where it picks from 16 floats, from
/// which the zero is subtracted already unless there is one per row.
template <bool Zeros>
struct Pick {
    using Simd = Avx512;
    using Unit = __m512i;
    static constexpr CodeType kCode = CodeType::kU4;
    __m512 table;

    explicit Pick(const Work& work)
        : table(_mm512_sub_ps(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                              _mm512_set1_ps(Zeros ? 0 : work.zero_point))) {}
    static Unit load(const std::byte* p) {
        __builtin_prefetch(p + kAhead, 0, 3);
        return _mm512_loadu_si512(p);
    }
    template <int C>
    __m512 column(Unit unit, __m512 zero) const {
        const __m512i shifted = _mm512_srli_epi32(unit, 8 * (C % 4) + 4 * (C / 4));
        const __m512 q = _mm512_permutexvar_ps(shifted, table);
        return Zeros ? _mm512_sub_ps(q, zero) : q;
    }
};

struct Bytes {
    using Simd = Avx512;
    using Half = __m512i;
    static Half load(const std::byte* p) { return _mm512_loadu_si512(p); }
    template <int I>
    static __m512 column(Half h) {
        constexpr int kNone = static_cast<int>(0x80808000u);  // zero bytes
        const __m512i pick = _mm512_broadcast_i32x4(
            _mm_setr_epi32(kNone + I, kNone + 4 + I, kNone + 8 + I, kNone + 12 + I));
        return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(h, pick));
    }
};

// 32 registers: 3 rows x 2 panels x 4 chains, and the operands.
using Tiles = Tile<3, 2, 1>;

}  // namespace

void grouped_u4_f32_avx512_run(const Work& work) {
    if (work.zero == FactorType::kNone)
        run<Float<Pick<false>>, Tiles>(work);
    else
        run<Float<Pick<true>>, Tiles>(work);
}
void grouped_u8_f32_avx512_run(const Work& work) {
    run<Float<Widen<Bytes, CodeType::kU8>>, Tiles>(work);
}

}  // namespace conclave::quant::grouped
