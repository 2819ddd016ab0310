#include "quant/simd/x86_avx2.h"

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

/// Codes below 16: 32 columns of them times int8 are at most 32 * 15 * 127 / 2 in 16 bits.
struct Multiply4 {
    using Bytes = grouped::Bytes;
    using Sum = Bytes::Half;
    static Sum none() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    static Sum dot(Sum sum, Bytes::Half h, int32_t x) {
        const __m256i four = _mm256_set1_epi32(x);
        return {_mm256_add_epi16(sum.lo, _mm256_maddubs_epi16(h.lo, four)),
                _mm256_add_epi16(sum.hi, _mm256_maddubs_epi16(h.hi, four))};
    }
    static Avx2::V total(Sum sum) {
        const __m256i one = _mm256_set1_epi16(1);
        return {_mm256_cvtepi32_ps(_mm256_madd_epi16(sum.lo, one)),
                _mm256_cvtepi32_ps(_mm256_madd_epi16(sum.hi, one))};
    }
};

/// Codes of 8 bits would saturate there: even and odd columns as 16 bits, their pairs in 32.
struct Multiply8 {
    using Bytes = grouped::Bytes;
    using Sum = Bytes::Half;
    static Sum none() { return Multiply4::none(); }
    static Sum dot(Sum sum, Bytes::Half h, int32_t x) {
        const __m256i four = _mm256_set1_epi32(x);
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8);
        const __m256i odd = _mm256_srai_epi16(four, 8);
        return {add(sum.lo, h.lo, even, odd), add(sum.hi, h.hi, even, odd)};
    }
    static Avx2::V total(Sum sum) {
        return {_mm256_cvtepi32_ps(sum.lo), _mm256_cvtepi32_ps(sum.hi)};
    }

  private:
    static __m256i add(__m256i sum, __m256i codes, __m256i even, __m256i odd) {
        const __m256i a = _mm256_and_si256(codes, _mm256_set1_epi16(255));
        const __m256i b = _mm256_srli_epi16(codes, 8);
        return _mm256_add_epi32(
            sum, _mm256_add_epi32(_mm256_madd_epi16(a, even), _mm256_madd_epi16(b, odd)));
    }
};

// A panel is two registers already. Some of what 4 rows add up waits in L1, which costs less than
// unpacking anew.
using Tiles = Tile<4, 1, 4>;

}  // namespace

void grouped_u4_i8_avx2_run(const Work& work) { run<Int8<Multiply4, CodeType::kU4>, Tiles>(work); }
void grouped_u8_i8_avx2_run(const Work& work) { run<Int8<Multiply8, CodeType::kU8>, Tiles>(work); }
void grouped_u4_f32_avx2_run(const Work& work) {
    run<Float<Widen<Bytes, CodeType::kU4>>, Tiles>(work);
}
void grouped_u8_f32_avx2_run(const Work& work) {
    run<Float<Widen<Bytes, CodeType::kU8>>, Tiles>(work);
}

}  // namespace conclave::quant::grouped
