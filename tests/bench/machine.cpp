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

}  // namespace

MachineProbe machine_probe([[maybe_unused]] CpuFeatures cpu) {
#if defined(__x86_64__)
    if (cpu.has(Isa::kAvx512)) return {read_avx512, fma_avx512, kChains * 2 * 16};
    if (cpu.has(Isa::kAvx2)) return {read_avx2, fma_avx2, kChains * 2 * 8};
#endif
    return {read_generic, fma_generic, kChains * 2 * 4};
}

}  // namespace conclave
