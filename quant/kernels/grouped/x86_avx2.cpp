#include "quant/simd/x86_avx2.h"

#include "quant/kernels/grouped/e4m3_tables.h"
#include "quant/kernels/grouped/generic.h"

namespace conclave::quant::grouped {
namespace {

struct Bytes {
    using Simd = Avx2;
    struct Half {
        __m256i lo, hi;  ///< rows 0 to 7, and 8 to 15
    };
    static Half load(const std::byte* p) {
        const auto* v = reinterpret_cast<const __m256i*>(p);
        return {_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
    }
    static __m256i low(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
    static Half low(Half h) { return {low(h.lo), low(h.hi)}; }
    static Half high(Half h) {
        return {low(_mm256_srli_epi16(h.lo, 4)), low(_mm256_srli_epi16(h.hi, 4))};
    }
    using Table = __m256i;
    static Table table(const uint8_t* bytes) {
        return _mm256_broadcastsi128_si256(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
    }
    static Half look(Table table, Half h) {
        return {_mm256_shuffle_epi8(table, h.lo), _mm256_shuffle_epi8(table, h.hi)};
    }
    static Half either(Half a, Half b) {
        return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
    }
    /// Fields of two bits, shifted to bit At; a register of rows takes one.
    template <int At>
    static void twos(const std::byte* p, Half (&h)[2]) {
        const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        h[0] = {two<At, 0>(v), two<At, 2>(v)};
        h[1] = {two<At, 4>(v), two<At, 6>(v)};
    }
    template <int At>
    static void ones(const std::byte* p, Half (&h)[2]) {
        const __m256i v =
            _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        h[0] = {one<At, 0>(v), one<At, 2>(v)};
        h[1] = {one<At, 4>(v), one<At, 6>(v)};
    }
    template <int At, int From>
    static __m256i two(__m256i v) {
        v = At > From ? _mm256_slli_epi64(v, At > From ? At - From : 0)
                      : _mm256_srli_epi64(v, At > From ? 0 : From - At);
        return _mm256_and_si256(v, _mm256_set1_epi8(3 << At));
    }
    /// Bit From of the lower 16 bytes, and the one above it of the others.
    template <int At, int From>
    static __m256i one(__m256i v) {
        constexpr int kLeft = At > From ? At - From : 0, kRight = At > From ? 0 : From - At;
        constexpr int kLeft2 = At > From + 1 ? At - From - 1 : 0;
        constexpr int kRight2 = At > From + 1 ? 0 : From + 1 - At;
        v = _mm256_sllv_epi64(v, _mm256_setr_epi64x(kLeft, kLeft, kLeft2, kLeft2));
        v = _mm256_srlv_epi64(v, _mm256_setr_epi64x(kRight, kRight, kRight2, kRight2));
        return _mm256_and_si256(v, _mm256_set1_epi8(1 << At));
    }
    template <int I>
    static Avx2::V column(Half h) {
        constexpr int kNone = static_cast<int>(0x80808000u);  // zero bytes
        const __m256i pick =
            _mm256_setr_epi32(kNone + I, kNone + 4 + I, kNone + 8 + I, kNone + 12 + I, kNone + I,
                              kNone + 4 + I, kNone + 8 + I, kNone + 12 + I);
        return {_mm256_cvtepi32_ps(_mm256_shuffle_epi8(h.lo, pick)),
                _mm256_cvtepi32_ps(_mm256_shuffle_epi8(h.hi, pick))};
    }
};

/// 16 numbers of int32.
struct Wholes {
    using Whole = Bytes::Half;
    static Whole set(int32_t n) { return {_mm256_set1_epi32(n), _mm256_set1_epi32(n)}; }
    static Whole whole(Avx2::V v) { return {_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi)}; }
    static Avx2::V floats(Whole w) { return {_mm256_cvtepi32_ps(w.lo), _mm256_cvtepi32_ps(w.hi)}; }
    static Whole add(Whole a, Whole b) {
        return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
    }
    static Whole sub(Whole a, Whole b) {
        return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
    }
    static Whole mul(Whole a, Whole b) {
        return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)};
    }
    static Whole high(Whole a) {
        return {_mm256_srai_epi32(a.lo, 16), _mm256_srai_epi32(a.hi, 16)};
    }
    static Whole low(Whole a) {
        const __m256i mask = _mm256_set1_epi32(65535);
        return {_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
    }
};

/// Codes below 16: 32 columns of them times int8 are at most 32 * 15 * 128 / 2 in 16 bits.
struct Multiply4 : Wholes {
    using Bytes = grouped::Bytes;
    using Sum = Bytes::Half;
    static constexpr bool kWide = false;
    static Sum none() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    static Sum dot(Sum sum, Bytes::Half h, int32_t x) {
        const __m256i four = _mm256_set1_epi32(x);
        return {_mm256_add_epi16(sum.lo, _mm256_maddubs_epi16(h.lo, four)),
                _mm256_add_epi16(sum.hi, _mm256_maddubs_epi16(h.hi, four))};
    }
    static Whole widen(Sum sum) {
        const __m256i one = _mm256_set1_epi16(1);
        return {_mm256_madd_epi16(sum.lo, one), _mm256_madd_epi16(sum.hi, one)};
    }
    static Avx2::V total(Sum sum) { return floats(widen(sum)); }
};

/// Sums of int32.
struct WideSums : Wholes {
    using Bytes = grouped::Bytes;
    using Sum = Whole;
    static constexpr bool kWide = true;
    static Sum none() { return set(0); }
    static Avx2::V total(Sum sum) { return floats(sum); }
};

/// Codes below 64: pairs of products are at most 2 * 63 * 128 in 16 bits, more of them are not.
struct Multiply6 : WideSums {
    static Sum dot(Sum sum, Bytes::Half h, int32_t x) {
        const __m256i four = _mm256_set1_epi32(x);
        return add(sum, Multiply4::widen(
                            {_mm256_maddubs_epi16(h.lo, four), _mm256_maddubs_epi16(h.hi, four)}));
    }
};

/// Codes of 8 bits would saturate there: even and odd columns as 16 bits, their pairs in 32.
struct Multiply8 : WideSums {
    static Sum dot(Sum sum, Bytes::Half h, int32_t x) {
        const __m256i four = _mm256_set1_epi32(x);
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8);
        const __m256i odd = _mm256_srai_epi16(four, 8);
        return {dot(sum.lo, h.lo, even, odd), dot(sum.hi, h.hi, even, odd)};
    }

  private:
    static __m256i dot(__m256i sum, __m256i codes, __m256i even, __m256i odd) {
        const __m256i a = _mm256_and_si256(codes, _mm256_set1_epi16(255));
        const __m256i b = _mm256_srli_epi16(codes, 8);
        return _mm256_add_epi32(
            sum, _mm256_add_epi32(_mm256_madd_epi16(a, even), _mm256_madd_epi16(b, odd)));
    }
};

/// 4-bit codes whose levels are no whole steps: each picks from two times eight floats.
struct Pick {
    using Simd = Avx2;
    using Unit = Bytes::Half;
    static constexpr CodeType kCode = CodeType::kT4;
    static constexpr bool kSteps = false;
    __m256 below, above;

    explicit Pick(const Work& work)
        : below(_mm256_loadu_ps(work.values)), above(_mm256_loadu_ps(work.values + 8)) {}
    static Unit load(const std::byte* p) { return Bytes::load(p); }
    template <int C>
    Avx2::V column(const Unit& unit, const Avx2::V&) const {
        constexpr int kShift = 8 * (C % 4) + 4 * (C / 4);
        return {pick<kShift>(unit.lo), pick<kShift>(unit.hi)};
    }

  private:
    template <int Shift>
    __m256 pick(__m256i v) const {
        const __m256i index = _mm256_srli_epi32(v, Shift);
        const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(v, 28 - Shift));  // by its sign
        return _mm256_blendv_ps(_mm256_permutevar8x32_ps(below, index),
                                _mm256_permutevar8x32_ps(above, index), upper);
    }
};

/// 8-bit floats as pairs of bf16, from tables of their bytes; the upper half of each lane is a
/// number then, and the lower half is one after a shift. Nans: 0x7f and 0xff are none but NaN.
template <CodeType Code, bool Nans>
struct Floats {
    using Simd = Avx2;
    static constexpr CodeType kCode = Code;
    static constexpr bool kSteps = false;
    struct Unit {
        Bytes::Half even[2], odd[2];  ///< columns 0 and 2, 1 and 3 of each half
    };
    explicit Floats(const Work&) {}

    static Unit load(const std::byte* p) {
        const auto chunk = load_chunk<Bytes, 8>(p);
        Unit unit;
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
            split(chunk.half[h].lo, unit.even[h].lo, unit.odd[h].lo);
            split(chunk.half[h].hi, unit.even[h].hi, unit.odd[h].hi);
        }
        return unit;
    }
    template <int C>
    Avx2::V column(const Unit& unit, const Avx2::V&) const {
        const Bytes::Half& pair = C % 2 == 0 ? unit.even[C / 4] : unit.odd[C / 4];
        return {number<C % 4 < 2>(pair.lo), number<C % 4 < 2>(pair.hi)};
    }

  private:
    template <bool Lower>
    static __m256 number(__m256i pair) {
        return _mm256_castsi256_ps(
            Lower ? _mm256_slli_epi32(pair, 16)
                  : _mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
    }
    static __m256i all(int v) { return _mm256_set1_epi8(static_cast<char>(v)); }
    static void split(__m256i v, __m256i& even, __m256i& odd) {
        const __m256i below = _mm256_and_si256(v, all(15));
        const __m256i above = _mm256_and_si256(_mm256_srli_epi16(v, 4), all(15));
        const __m256i subnormal =
            _mm256_cmpeq_epi8(_mm256_and_si256(v, all(0x78)), _mm256_setzero_si256());
        __m256i high =
            _mm256_blendv_epi8(_mm256_shuffle_epi8(Bytes::table(kNormalHigh), above),
                               _mm256_shuffle_epi8(Bytes::table(kSubnormalHigh), below), subnormal);
        if constexpr (Nans) {
            const __m256i nan = _mm256_cmpeq_epi8(_mm256_or_si256(v, all(0x80)), all(0xff));
            high = _mm256_or_si256(high, _mm256_and_si256(nan, all(0x7f)));
        }
        high = _mm256_or_si256(high, _mm256_and_si256(v, all(0x80)));
        const __m256i low =
            _mm256_blendv_epi8(_mm256_slli_epi16(below, 4),
                               _mm256_shuffle_epi8(Bytes::table(kSubnormalLow), below), subnormal);
        const __m256i bytes = _mm256_set1_epi16(255);
        even = _mm256_or_si256(_mm256_slli_epi16(high, 8), _mm256_and_si256(low, bytes));
        odd = _mm256_or_si256(_mm256_srli_epi16(low, 8), _mm256_andnot_si256(bytes, high));
    }
};

// A panel is two registers already. Some of what 4 rows add up waits in L1, which costs less than
// unpacking anew.
using Tiles = Tile<4, 1, 4>;

}  // namespace

void grouped_u4_i8row_avx2_run(const Work& work) {
    run_int8_rows<Multiply4, CodeType::kU4, Tiles>(work);
}
void grouped_u8_i8row_avx2_run(const Work& work) {
    run_int8_rows<Multiply8, CodeType::kU8, Tiles>(work);
}
void grouped_u4_i8_avx2_run(const Work& work) { run_int8<Multiply4, CodeType::kU4, Tiles>(work); }
void grouped_u8_i8_avx2_run(const Work& work) { run_int8<Multiply8, CodeType::kU8, Tiles>(work); }
void grouped_u2_i8_avx2_run(const Work& work) { run_int8<Multiply4, CodeType::kU2, Tiles>(work); }
void grouped_u3_i8_avx2_run(const Work& work) { run_int8<Multiply4, CodeType::kU3, Tiles>(work); }
void grouped_u5_i8_avx2_run(const Work& work) { run_int8<Multiply6, CodeType::kU5, Tiles>(work); }
void grouped_u6_i8_avx2_run(const Work& work) { run_int8<Multiply6, CodeType::kU6, Tiles>(work); }
// Twice the largest step may not fit where codes of 4 bits are multiplied.
void grouped_t4_i8_avx2_run(const Work& work) {
    run<Int8<Multiply8, CodeType::kT4, Zeros::kOne>, Tiles>(work);
}
void grouped_u4_f32_avx2_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU4>, Tiles>(work);
}
void grouped_u8_f32_avx2_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU8>, Tiles>(work);
}
void grouped_u2_f32_avx2_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU2>, Tiles>(work);
}
void grouped_u3_f32_avx2_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU3>, Tiles>(work);
}
void grouped_u5_f32_avx2_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU5>, Tiles>(work);
}
void grouped_u6_f32_avx2_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU6>, Tiles>(work);
}
void grouped_t4_f32_avx2_run(const Work& work) {
    if (work.step > 0)
        run<Float<Widen<Bytes, CodeType::kT4>>, Tiles>(work);
    else
        run<Float<Pick>, Tiles>(work);
}
void grouped_e4m3_f32_avx2_run(const Work& work) {
    run<Float<Floats<CodeType::kE4M3, true>>, Tiles>(work);
}
void grouped_e4m3n_f32_avx2_run(const Work& work) {
    run<Float<Floats<CodeType::kE4M3N, false>>, Tiles>(work);
}

}  // namespace conclave::quant::grouped
