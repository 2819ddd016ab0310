// 16 floats in two ymm registers. Only for sources built with the AVX2 flags; internal linkage.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace conclave::quant {
namespace {

struct Avx2 {
    struct V {
        __m256 lo, hi;
    };
    static constexpr int kRegisters = 8;  ///< Vs that registers hold

    static V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
    static V set1(float a) { return {_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
    static V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
    static void store(float* p, V v) {
        _mm256_storeu_ps(p, v.lo);
        _mm256_storeu_ps(p + 8, v.hi);
    }
    static void store_bytes(std::byte* p, V v) { store(reinterpret_cast<float*>(p), v); }
    /// The first n of 16; the others are zero, their memory is not touched.
    static V load_part(const float* p, int n) {
        return {_mm256_maskload_ps(p, mask(n)), _mm256_maskload_ps(p + 8, mask(n - 8))};
    }
    static void store_part(float* p, int n, V v) {
        _mm256_maskstore_ps(p, mask(n), v.lo);
        _mm256_maskstore_ps(p + 8, mask(n - 8), v.hi);
    }

    static V load_f32(const std::byte* p) { return load(reinterpret_cast<const float*>(p)); }
    static V load_f16(const std::byte* p) {
        return {_mm256_cvtph_ps(half(p)), _mm256_cvtph_ps(half(p + 16))};
    }
    static V load_bf16(const std::byte* p) { return {bf16(half(p)), bf16(half(p + 16))}; }
    /// 16 unsigned bytes
    static V load_u4(const std::byte* p) {
        const __m128i v = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
        const __m128i mask = _mm_set1_epi8(15);
        const __m128i all =
            _mm_unpacklo_epi64(_mm_and_si128(v, mask), _mm_and_si128(_mm_srli_epi16(v, 4), mask));
        return u8(all);
    }
    static V load_u8(const std::byte* p) { return u8(half(p)); }
    static V u8(__m128i v) {
        return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(v, v)))};
    }
    static V load_i8(const std::byte* p) {
        const __m128i v = half(p);
        return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(v, v)))};
    }
    /// 16 numbers of E4M3FN, which as f16 are 2^-8 of themselves
    static V load_e4m3(const std::byte* p) {
        const __m256i top = _mm256_slli_epi16(_mm256_cvtepu8_epi16(half(p)), 8);
        const __m256i f16 = _mm256_and_si256(_mm256_srai_epi16(top, 1),
                                             _mm256_set1_epi16(static_cast<short>(0xbf80)));
        return {e4m3(_mm256_castsi256_si128(f16)), e4m3(_mm256_extracti128_si256(f16, 1))};
    }
    /// 2^(byte - 127), 255 is NaN
    static V load_e8m0(const std::byte* p) {
        const __m128i b = half(p);
        return {e8m0(_mm256_cvtepu8_epi32(b)),
                e8m0(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(b, b)))};
    }
    static V load_f32_part(const std::byte* p, int n) {
        return load_part(reinterpret_cast<const float*>(p), n);
    }
    static V load_f16_part(const std::byte* p, int n) {
        std::byte codes[32] = {};
        std::memcpy(codes, p, static_cast<size_t>(n) * 2);
        return load_f16(codes);
    }
    static V load_bf16_part(const std::byte* p, int n) {
        std::byte codes[32] = {};
        std::memcpy(codes, p, static_cast<size_t>(n) * 2);
        return load_bf16(codes);
    }

    static V add(V a, V b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
    static V sub(V a, V b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
    static V mul(V a, V b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
    static V div(V a, V b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
    static V sqrt(V a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
    /// a * b + c
    static V fma(V a, V b, V c) {
        return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
    }
    /// c - a * b
    static V fnma(V a, V b, V c) {
        return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
    }
    /// b where either is NaN
    static V max(V a, V b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
    static V min(V a, V b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
    /// To whole numbers, ties to even.
    static V round(V a) {
        constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)};
    }
    /// 2^floor(log2 |a|); 0 for zeros and subnormal numbers.
    static V power(V a) {
        const __m256 exponent = _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000));
        return {_mm256_and_ps(a.lo, exponent), _mm256_and_ps(a.hi, exponent)};
    }
    /// ((0+8)+(4+12)) + ... : halves are added until one lane is left
    static float sum(V v) {
        const __m256 a = _mm256_add_ps(v.lo, v.hi);
        const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
        return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
    }
    /// The largest of 16 numbers.
    static float most(V v) {
        const __m256 a = _mm256_max_ps(v.lo, v.hi);
        const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
        return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
    }
    /// a * 2^n for |n| <= 252, n = m - 1.5 * 2^23 whole
    static V scale2(V a, V m) { return {scale2_half(a.lo, m.lo), scale2_half(a.hi, m.hi)}; }

    static V round_bf16(V v) {
        return {_mm256_castsi256_ps(_mm256_slli_epi32(bf16_bits(v.lo), 16)),
                _mm256_castsi256_ps(_mm256_slli_epi32(bf16_bits(v.hi), 16))};
    }
    static void store_bf16_part(uint16_t* p, int n, V v) {
        // packus works within 128-bit lanes: the permutation puts its quarters in order.
        const __m256i mixed = _mm256_packus_epi32(bf16_bits(v.lo), bf16_bits(v.hi));
        store_half_part(p, n, _mm256_permute4x64_epi64(mixed, 0xd8));
    }
    static void store_f16_part(uint16_t* p, int n, V v) {
        store_half_part(p, n,
                        _mm256_set_m128i(_mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT),
                                         _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT)));
    }
    /// Of whole numbers in [-128, 127]
    static void store_i8_part(int8_t* p, int n, V v) {
        const __m256i lo = _mm256_cvtps_epi32(v.lo), hi = _mm256_cvtps_epi32(v.hi);
        const __m256i half = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
        const __m128i bytes =
            _mm_packs_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        if (n == 16) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
            return;
        }
        int8_t codes[16];
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), bytes);
        std::memcpy(p, codes, static_cast<size_t>(n));
    }

  private:
    static __m256i mask(int n) {
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
    }
    static __m128i half(const std::byte* p) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    }
    static __m256 e4m3(__m128i f16) {
        const __m256 v = _mm256_mul_ps(_mm256_cvtph_ps(f16), _mm256_set1_ps(256));
        const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
        return _mm256_or_ps(v, _mm256_cmp_ps(size, _mm256_set1_ps(480), _CMP_EQ_OQ));
    }
    static __m256 e8m0(__m256i b) {
        const __m256i odd = _mm256_or_si256(_mm256_cmpeq_epi32(b, _mm256_setzero_si256()),
                                            _mm256_cmpeq_epi32(b, _mm256_set1_epi32(255)));
        return _mm256_castsi256_ps(_mm256_or_si256(
            _mm256_slli_epi32(b, 23), _mm256_and_si256(odd, _mm256_set1_epi32(0x400000))));
    }
    static __m256 bf16(__m128i h) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
    }
    static __m256 scale2_half(__m256 a, __m256 m) {
        // In two factors, as 2^n itself may be no normal number.
        const __m256i bias = _mm256_set1_epi32(127);
        const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(m),
                                           _mm256_castps_si256(_mm256_set1_ps(12582912.0f)));
        const __m256i n0 = _mm256_srai_epi32(n, 1);
        const __m256i n1 = _mm256_sub_epi32(n, n0);
        const __m256i f0 = _mm256_slli_epi32(_mm256_add_epi32(n0, bias), 23);
        const __m256i f1 = _mm256_slli_epi32(_mm256_add_epi32(n1, bias), 23);
        return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(f0)), _mm256_castsi256_ps(f1));
    }
    static __m256i bf16_bits(__m256 v) {
        const __m256i u = _mm256_castps_si256(v);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
        const __m256i up = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
        const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
        const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        return _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
    }
    static void store_half_part(uint16_t* p, int n, __m256i h) {
        if (n == 16) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), h);
            return;
        }
        uint16_t codes[16];
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), h);
        std::memcpy(p, codes, static_cast<size_t>(n) * 2);
    }
};

}  // namespace
}  // namespace conclave::quant
