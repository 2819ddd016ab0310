#include "quant/kernels/grouped/x86_avx512_bytes.h"

#include "quant/kernels/grouped/e4m3_tables.h"
#include "quant/kernels/grouped/generic.h"

namespace conclave::quant::grouped {
namespace {

/// 4-bit codes: a shift brings each to the bottom of its lane, where it picks from 16 floats, from
/// which the zero is subtracted already unless there is one per row.
template <CodeType Code, bool Zeros>
struct Pick {
    using Simd = Avx512;
    using Unit = __m512i;
    static constexpr CodeType kCode = Code;
    static constexpr bool kSteps = false;
    __m512 table;

    explicit Pick(const Work& work)
        : table(_mm512_sub_ps(_mm512_loadu_ps(work.values),
                              _mm512_set1_ps(Zeros ? 0 : work.zero_point))) {}
    static Unit load(const std::byte* p) { return _mm512_loadu_si512(p); }
    template <int C>
    __m512 column(Unit unit, __m512 zero) const {
        const __m512i shifted = _mm512_srli_epi32(unit, 8 * (C % 4) + 4 * (C / 4));
        const __m512 q = _mm512_permutexvar_ps(shifted, table);
        return Zeros ? _mm512_sub_ps(q, zero) : q;
    }
};

/// 8-bit floats as pairs of bf16, from tables of their bytes; the upper half of each lane is a
/// number then, and the lower half is one after a shift. Nans: 0x7f and 0xff are none but NaN.
template <CodeType Code, bool Nans>
struct Floats {
    using Simd = Avx512;
    static constexpr CodeType kCode = Code;
    static constexpr bool kSteps = false;
    struct Unit {
        __m512i even[2], odd[2];  ///< columns 0 and 2, 1 and 3 of each half
    };
    explicit Floats(const Work&) {}

    static Unit load(const std::byte* p) {
        const auto chunk = load_chunk<Bytes, 8>(p);
        Unit unit;
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) split(chunk.half[h], unit.even[h], unit.odd[h]);
        return unit;
    }
    template <int C>
    __m512 column(const Unit& unit, __m512) const {
        const __m512i pair = C % 2 == 0 ? unit.even[C / 4] : unit.odd[C / 4];
        return _mm512_castsi512_ps(C % 4 < 2 ? _mm512_slli_epi32(pair, 16)
                                             : _mm512_and_si512(pair, all32(0xffff0000)));
    }

  private:
    static __m512i all8(int v) { return _mm512_set1_epi8(static_cast<char>(v)); }
    static __m512i all32(uint32_t v) { return _mm512_set1_epi32(static_cast<int>(v)); }
    static __m512i table(const uint8_t (&bytes)[16]) {
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
    }
    /// a | (b & c)
    static __m512i merge(__m512i a, __m512i b, __m512i c) {
        return _mm512_ternarylogic_epi32(a, b, c, 0xf8);
    }
    static void split(__m512i v, __m512i& even, __m512i& odd) {
        const __m512i below = _mm512_and_si512(v, all8(15));
        const __m512i above = _mm512_and_si512(_mm512_srli_epi16(v, 4), all8(15));
        const __mmask64 subnormal = _mm512_testn_epi8_mask(v, all8(0x78));
        __m512i high = _mm512_shuffle_epi8(table(kNormalHigh), above);
        high = _mm512_mask_shuffle_epi8(high, subnormal, table(kSubnormalHigh), below);
        if constexpr (Nans) {
            const __mmask64 nan =
                _mm512_cmpeq_epi8_mask(_mm512_or_si512(v, all8(0x80)), all8(0xff));
            high = _mm512_mask_mov_epi8(high, nan, all8(0x7f));
        }
        high = merge(high, v, all8(0x80));
        __m512i low = _mm512_slli_epi16(below, 4);
        low = _mm512_mask_shuffle_epi8(low, subnormal, table(kSubnormalLow), below);
        even = merge(_mm512_slli_epi16(high, 8), low, all32(0x00ff00ff));
        odd = merge(_mm512_srli_epi16(low, 8), high, all32(0xff00ff00));
    }
};

// 32 registers: 3 rows x 2 panels x 4 chains, and the operands.
using Tiles = Tile<3, 2, 1>;

}  // namespace

void grouped_u4_f32_avx512_run(const Work& work) {
    if (work.zero_added)
        run<Float<Pick<CodeType::kU4, false>, true>, Tiles>(work);
    else if (work.zero == FactorType::kNone)
        run<Float<Pick<CodeType::kU4, false>>, Tiles>(work);
    else
        run<Float<Pick<CodeType::kU4, true>>, Tiles>(work);
}
void grouped_u8_f32_avx512_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU8>, Tiles>(work);
}
void grouped_u2_f32_avx512_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU2>, Tiles>(work);
}
void grouped_u3_f32_avx512_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU3>, Tiles>(work);
}
void grouped_u5_f32_avx512_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU5>, Tiles>(work);
}
void grouped_u6_f32_avx512_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU6>, Tiles>(work);
}
void grouped_t4_f32_avx512_run(const Work& work) {
    run<Float<Pick<CodeType::kT4, false>>, Tiles>(work);
}
void grouped_e4m3_f32_avx512_run(const Work& work) {
    run<Float<Floats<CodeType::kE4M3, true>>, Tiles>(work);
}
void grouped_e4m3n_f32_avx512_run(const Work& work) {
    run<Float<Floats<CodeType::kE4M3N, false>>, Tiles>(work);
}

}  // namespace conclave::quant::grouped
