#include "tests/bench/machine.h"

#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace conclave {
namespace {

constexpr int kChains = 12;  // more than a latency of 4 cycles at 2 per cycle

// Each variant is the same two loops: four lines per turn in one forward stream with a prefetch,
// and `kChains` independent chains of multiply-adds.
#if defined(__x86_64__)
__attribute__((target("avx512f"))) uint64_t read_avx512(const std::byte* p, size_t bytes) {
    __m512i sum[4] = {};
    for (size_t i = 0; i < bytes; i += 256)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            __builtin_prefetch(p + i + 64 * j + 4096);
            sum[j] = _mm512_xor_si512(sum[j], _mm512_loadu_si512(p + i + 64 * j));
        }
    uint64_t lanes[8];
    _mm512_storeu_si512(lanes, _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]),
                                                _mm512_xor_si512(sum[2], sum[3])));
    return lanes[0] ^ lanes[7];
}

__attribute__((target("avx512f"))) float fma_avx512(int64_t rounds) {
    __m512 acc[kChains];
    const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
    for (auto& v : acc) v = b;
    for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
        for (int j = 0; j < kChains; ++j) acc[j] = _mm512_fmadd_ps(acc[j], a, b);
    for (int j = 1; j < kChains; ++j) acc[0] = _mm512_add_ps(acc[0], acc[j]);
    float lanes[16];
    _mm512_storeu_ps(lanes, acc[0]);
    return lanes[0];
}

// The instructions by name, as their operands never change: no compiler may then take one for many.
__attribute__((target("avx512f,avx512vnni"))) float int8_avx512(int64_t rounds) {
    __m512i acc[kChains];
    const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-1);
    for (auto& v : acc) v = b;
    for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
        for (int j = 0; j < kChains; ++j) {
            __m512i sum = acc[j];
            __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
            acc[j] = sum;
        }
    for (int j = 1; j < kChains; ++j) acc[0] = _mm512_add_epi32(acc[0], acc[j]);
    int32_t lanes[16];
    _mm512_storeu_si512(lanes, acc[0]);
    return static_cast<float>(lanes[0]);
}

__attribute__((target("avx512f,avx512bf16"))) float bf16_avx512(int64_t rounds) {
    __m512 acc[kChains];
    const __m512i a = _mm512_set1_epi32(0x3f803f80);
    for (auto& v : acc) v = _mm512_setzero_ps();
    for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
        for (int j = 0; j < kChains; ++j) {
            __m512 sum = acc[j];
            __asm__("vdpbf16ps %1, %1, %0" : "+v"(sum) : "v"(a));
            acc[j] = sum;
        }
    for (int j = 1; j < kChains; ++j) acc[0] = _mm512_add_ps(acc[0], acc[j]);
    float lanes[16];
    _mm512_storeu_ps(lanes, acc[0]);
    return lanes[0];
}

/// Of 8-bit codes to int32: products in pairs, which widening adds up, and the sum.
__attribute__((target("avx2"))) float int8_avx2(int64_t rounds) {
    __m256i acc[kChains];
    const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-1), one = _mm256_set1_epi16(1);
    for (auto& v : acc) v = b;
    for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
        for (int j = 0; j < kChains; ++j) {
            __m256i pairs;
            __asm__ volatile("vpmaddubsw %2, %1, %0" : "=x"(pairs) : "x"(a), "x"(b));
            acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(pairs, one));
        }
    for (int j = 1; j < kChains; ++j) acc[0] = _mm256_add_epi32(acc[0], acc[j]);
    return static_cast<float>(_mm_cvtsi128_si32(_mm256_castsi256_si128(acc[0])));
}

__attribute__((target("avx2,fma"))) uint64_t read_avx2(const std::byte* p, size_t bytes) {
    __m256i sum[4] = {};
    for (size_t i = 0; i < bytes; i += 128)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            __builtin_prefetch(p + i + 32 * j + 4096);
            sum[j] = _mm256_xor_si256(
                sum[j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i + 32 * j)));
        }
    uint64_t lanes[4];
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(lanes),
        _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3])));
    return lanes[0] ^ lanes[3];
}

__attribute__((target("avx2,fma"))) float fma_avx2(int64_t rounds) {
    __m256 acc[kChains];
    const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
    for (auto& v : acc) v = b;
    for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
        for (int j = 0; j < kChains; ++j) acc[j] = _mm256_fmadd_ps(acc[j], a, b);
    for (int j = 1; j < kChains; ++j) acc[0] = _mm256_add_ps(acc[0], acc[j]);
    float lanes[8];
    _mm256_storeu_ps(lanes, acc[0]);
    return lanes[0];
}
#endif

typedef float F4 __attribute__((vector_size(16)));

uint64_t read_generic(const std::byte* p, size_t bytes) {
    uint64_t sum[4] = {};
    for (size_t i = 0; i < bytes; i += 32) {
        uint64_t v[4];
        std::memcpy(v, p + i, sizeof v);
        for (int j = 0; j < 4; ++j) sum[j] ^= v[j];
    }
    return sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
}

float fma_generic(int64_t rounds) {
    F4 acc[kChains];
    const F4 a = {0.999f, 0.999f, 0.999f, 0.999f}, b = {1e-3f, 1e-3f, 1e-3f, 1e-3f};
    for (auto& v : acc) v = b;
    for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
        for (int j = 0; j < kChains; ++j) acc[j] = acc[j] * a + b;
    for (int j = 1; j < kChains; ++j) acc[0] += acc[j];
    return acc[0][0];
}

float int8_generic(int64_t rounds) {
    typedef int16_t I8 __attribute__((vector_size(16)));
    I8 acc[kChains];
    const I8 a = {3, 1, 4, 1, 5, 9, 2, 6};
    for (auto& v : acc) v = a;
    for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
        for (int j = 0; j < kChains; ++j) acc[j] = acc[j] * a + a;
    for (int j = 1; j < kChains; ++j) acc[0] += acc[j];
    return acc[0][0];
}

}  // namespace

MachineProbe machine_probe([[maybe_unused]] CpuFeatures cpu) {
#if defined(__x86_64__)
    const MachinePeak pairs{int8_avx2, kChains * 2 * 32};
    if (cpu.has(Isa::kAvx512)) {
        MachineProbe probe{read_avx512, {fma_avx512, kChains * 2 * 16}, pairs};
        if (cpu.has(Isa::kAvx512Vnni)) probe.int8 = {int8_avx512, kChains * 2 * 64};
        if (cpu.has(Isa::kAvx512Bf16)) probe.bf16 = {bf16_avx512, kChains * 2 * 32};
        return probe;
    }
    if (cpu.has(Isa::kAvx2)) return {read_avx2, {fma_avx2, kChains * 2 * 8}, pairs};
#endif
    return {read_generic, {fma_generic, kChains * 2 * 4}, {int8_generic, kChains * 2 * 8}};
}

}  // namespace conclave
