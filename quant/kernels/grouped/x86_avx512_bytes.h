// The bytes of codes (codes.h) in AVX-512. Internal linkage.
#pragma once
#include "quant/kernels/grouped/codes.h"
#include "quant/simd/x86_avx512.h"

namespace conclave::quant::grouped {
namespace {

struct Bytes {
    using Simd = Avx512;
    using Half = __m512i;
    static Half load(const std::byte* p) { return _mm512_loadu_si512(p); }
    static Half low(Half h) { return _mm512_and_si512(h, _mm512_set1_epi8(15)); }
    static Half high(Half h) { return low(_mm512_srli_epi16(h, 4)); }
    template <int I>
    static __m512 column(Half h) {
        constexpr int kNone = static_cast<int>(0x80808000u);  // zero bytes
        const __m512i pick = _mm512_broadcast_i32x4(
            _mm_setr_epi32(kNone + I, kNone + 4 + I, kNone + 8 + I, kNone + 12 + I));
        return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(h, pick));
    }
    using Table = __m512i;
    static Table table(const uint8_t* bytes) {
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
    }
    static Half look(Table table, Half h) { return _mm512_shuffle_epi8(table, h); }

    static Half either(Half a, Half b) { return _mm512_or_si512(a, b); }
    /// Fields of two bits: each quarter of a half takes another, rotated to bit At.
    template <int At>
    static void twos(const std::byte* p, Half (&h)[2]) {
        const __m512i v =
            _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        const __m512i mask = _mm512_set1_epi8(3 << At);
        h[0] = _mm512_and_si512(_mm512_rolv_epi64(v, rotations<At, At - 2>()), mask);
        h[1] = _mm512_and_si512(_mm512_rolv_epi64(v, rotations<At - 4, At - 6>()), mask);
    }
    template <int At>
    static void ones(const std::byte* p, Half (&h)[2]) {
        const __m512i v =
            _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        const __m512i mask = _mm512_set1_epi8(1 << At);
        h[0] =
            _mm512_and_si512(_mm512_rolv_epi64(v, rotations<At, At - 1, At - 2, At - 3>()), mask);
        h[1] = _mm512_and_si512(_mm512_rolv_epi64(v, rotations<At - 4, At - 5, At - 6, At - 7>()),
                                mask);
    }

  private:
    /// Of the quarters of a vector, to the left; modulo 64.
    template <int A, int B, int C, int D>
    static __m512i rotations() {
        return _mm512_set_epi64(D & 63, D & 63, C & 63, C & 63, B & 63, B & 63, A & 63, A & 63);
    }
    template <int A, int B>
    static __m512i rotations() {
        return rotations<A, A, B, B>();
    }
};

}  // namespace
}  // namespace conclave::quant::grouped
