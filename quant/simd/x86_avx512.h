// 16 floats in one zmm register. Only for sources built with the AVX-512 flags; internal linkage.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace conclave::quant {
namespace {

struct Avx512 {
    using V = __m512;
    static constexpr int kRegisters = 32;  ///< Vs that registers hold

    static __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }

    static V zero() { return _mm512_setzero_ps(); }
    static V set1(float a) { return _mm512_set1_ps(a); }
    static V load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
    static void store_bytes(std::byte* p, V v) { _mm512_storeu_ps(p, v); }
    /// The first n of 16; the others are zero, their memory is not touched.
    static V load_part(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
    static void store_part(float* p, int n, V v) { _mm512_mask_storeu_ps(p, first(n), v); }

    static V load_f32(const std::byte* p) { return _mm512_loadu_ps(p); }
    static V load_f16(const std::byte* p) { return f16(_mm256_loadu_si256(as_int(p))); }
    static V load_bf16(const std::byte* p) { return bf16(_mm256_loadu_si256(as_int(p))); }
    /// 16 unsigned bytes
    static V load_u4(const std::byte* p) {
        const __m128i v = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
        const __m128i mask = _mm_set1_epi8(15);
        const __m128i all =
            _mm_unpacklo_epi64(_mm_and_si128(v, mask), _mm_and_si128(_mm_srli_epi16(v, 4), mask));
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(all));
    }
    static V load_u8(const std::byte* p) {
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(v));
    }
    static V load_i8(const std::byte* p) {
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v));
    }
    /// 16 numbers of E4M3FN, which as f16 are 2^-8 of themselves
    static V load_e4m3(const std::byte* p) {
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const __m256i top = _mm256_slli_epi16(_mm256_cvtepu8_epi16(v), 8);
        const __m256i half = _mm256_and_si256(_mm256_srai_epi16(top, 1),
                                              _mm256_set1_epi16(static_cast<short>(0xbf80)));
        const __mmask16 nan =
            _mm_cmpeq_epi8_mask(_mm_or_si128(v, _mm_set1_epi8(-128)), _mm_set1_epi8(-1));
        return _mm512_mask_mov_ps(_mm512_mul_ps(f16(half), _mm512_set1_ps(256)), nan,
                                  _mm512_set1_ps(__builtin_nanf("")));
    }
    /// 2^(byte - 127), 255 is NaN
    static V load_e8m0(const std::byte* p) {
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const __mmask16 odd =
            _mm_cmpeq_epi8_mask(v, _mm_setzero_si128()) | _mm_cmpeq_epi8_mask(v, _mm_set1_epi8(-1));
        const __m512i bits = _mm512_slli_epi32(_mm512_cvtepu8_epi32(v), 23);
        return _mm512_castsi512_ps(
            _mm512_mask_or_epi32(bits, odd, bits, _mm512_set1_epi32(0x400000)));
    }
    static V load_f32_part(const std::byte* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
    static V load_f16_part(const std::byte* p, int n) {
        return f16(_mm256_maskz_loadu_epi16(first(n), p));
    }
    static V load_bf16_part(const std::byte* p, int n) {
        return bf16(_mm256_maskz_loadu_epi16(first(n), p));
    }

    static V add(V a, V b) { return _mm512_add_ps(a, b); }
    static V sub(V a, V b) { return _mm512_sub_ps(a, b); }
    static V mul(V a, V b) { return _mm512_mul_ps(a, b); }
    static V div(V a, V b) { return _mm512_div_ps(a, b); }
    static V sqrt(V a) { return _mm512_sqrt_ps(a); }
    /// a * b + c
    static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
    /// c - a * b
    static V fnma(V a, V b, V c) { return _mm512_fnmadd_ps(a, b, c); }
    /// b where either is NaN
    static V max(V a, V b) { return _mm512_max_ps(a, b); }
    static V min(V a, V b) { return _mm512_min_ps(a, b); }
    /// To whole numbers, ties to even.
    static V round(V a) {
        return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    /// 2^floor(log2 |a|); 0 for zeros and subnormal numbers.
    static V power(V a) {
        return _mm512_and_ps(a, _mm512_castsi512_ps(_mm512_set1_epi32(0x7f800000)));
    }
    /// ((0+8)+(4+12)) + ... : halves are added until one lane is left
    static float sum(V v) {
        const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
        const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
        return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
    }
    /// sum() of each.
    static void sum4(const V (&v)[4], float* to) {
        const __m512 ab = halves(v[0], v[1]), cd = halves(v[2], v[3]);
        // Of each vector four numbers are left, one vector to a lane of 128 bits.
        const __m512 four =
            _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
        const __m512 two = _mm512_add_ps(four, _mm512_permute_ps(four, 0x4e));
        const __m512 one = _mm512_add_ps(two, _mm512_movehdup_ps(two));
        const __m512i pick = _mm512_castsi128_si512(_mm_setr_epi32(0, 4, 8, 12));
        _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(pick, one)));
    }
    /// The largest of 16 numbers.
    static float most(V v) {
        const __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
        const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
        return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
    }
    /// a * 2^n for |n| <= 252, n = m - 1.5 * 2^23 whole
    static V scale2(V a, V m) {
        return _mm512_scalef_ps(a, _mm512_sub_ps(m, _mm512_set1_ps(12582912.0f)));
    }

    static __m512i bf16_bits(V v) {
        const __m512i u = _mm512_castps_si512(v);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
        const __m512i up = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
        const __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
        const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        return _mm512_srli_epi32(_mm512_mask_mov_epi32(up, nan, quiet), 16);
    }
    static V round_bf16(V v) { return _mm512_castsi512_ps(_mm512_slli_epi32(bf16_bits(v), 16)); }
    static void store_bf16_part(uint16_t* p, int n, V v) {
        _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtepi32_epi16(bf16_bits(v)));
    }
    static void store_f16_part(uint16_t* p, int n, V v) {
        _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    /// Of whole numbers in [-128, 127]
    static void store_i8_part(int8_t* p, int n, V v) {
        _mm_mask_storeu_epi8(p, first(n), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
    }

  private:
    /// The lower half of each plus its upper half.
    static V halves(V a, V b) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
    static const __m256i* as_int(const std::byte* p) { return reinterpret_cast<const __m256i*>(p); }
    static V f16(__m256i h) { return _mm512_cvtph_ps(h); }
    static V bf16(__m256i h) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
    }
};

}  // namespace
}  // namespace conclave::quant
