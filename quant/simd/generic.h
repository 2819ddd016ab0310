// 16 floats as four vectors of four, which every compiler maps to the baseline of its CPU (SSE2,
// NEON). fma rounds twice: a fused one would be a library call here. Internal linkage.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "runtime/base/half.h"

namespace conclave::quant {
namespace {

struct Generic {
    typedef float F4 __attribute__((vector_size(16)));
    typedef int32_t I4 __attribute__((vector_size(16)));
    struct V {
        F4 q[4];
    };
    static constexpr int kRegisters = 4;  ///< Vs that registers hold, as SSE2 has them

    static V zero() { return set1(0); }
    static V set1(float a) {
        return {{F4{a, a, a, a}, F4{a, a, a, a}, F4{a, a, a, a}, F4{a, a, a, a}}};
    }
    static V load(const float* p) {
        V v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
    static void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
    static void store_bytes(std::byte* p, V v) { std::memcpy(p, &v, sizeof v); }
    /// The first n of 16; the others are zero, their memory is not touched.
    static V load_part(const float* p, int n) {
        V v = zero();
        std::memcpy(&v, p, static_cast<size_t>(n) * 4);
        return v;
    }
    static void store_part(float* p, int n, V v) { std::memcpy(p, &v, static_cast<size_t>(n) * 4); }

    static V load_f32(const std::byte* p) {
        V v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
    static V load_f16(const std::byte* p) { return load_f16_part(p, 16); }
    static V load_bf16(const std::byte* p) { return load_bf16_part(p, 16); }
    /// Byte i of 8: element i below, 8 + i above.
    static V load_u4(const std::byte* p) {
        float f[16];
        for (int i = 0; i < 8; ++i) {
            f[i] = static_cast<float>(p[i] & std::byte{15});
            f[8 + i] = static_cast<float>(p[i] >> 4);
        }
        return load(f);
    }
    /// 16 unsigned bytes
    static V load_u8(const std::byte* p) {
        float f[16];
        for (int i = 0; i < 16; ++i) f[i] = static_cast<float>(p[i]);
        return load(f);
    }
    /// 16 signed bytes
    static V load_i8(const std::byte* p) {
        float f[16];
        for (int i = 0; i < 16; ++i) f[i] = static_cast<float>(static_cast<int8_t>(p[i]));
        return load(f);
    }
    /// 16 numbers of E4M3FN
    static V load_e4m3(const std::byte* p) {
        float f[16];
        for (int i = 0; i < 16; ++i) {
            const auto c = static_cast<uint32_t>(p[i]);
            // As a f16 it is 2^-8 of itself.
            const auto half = static_cast<uint16_t>((c & 128) << 8 | (c & 127) << 7);
            f[i] = (c & 127) == 127 ? __builtin_nanf("") : f16_to_f32(half) * 256;
        }
        return load(f);
    }
    /// 2^(byte - 127), 255 is NaN
    static V load_e8m0(const std::byte* p) {
        uint32_t bits[16];
        for (int i = 0; i < 16; ++i) {
            const auto b = static_cast<uint32_t>(p[i]);
            bits[i] = b << 23 | (b == 0 || b == 255 ? 0x400000u : 0u);
        }
        V v;
        std::memcpy(&v, bits, sizeof v);
        return v;
    }
    static V load_f32_part(const std::byte* p, int n) {
        V v = zero();
        std::memcpy(&v, p, static_cast<size_t>(n) * 4);
        return v;
    }
    static V load_f16_part(const std::byte* p, int n) {
        uint16_t codes[16] = {};
        std::memcpy(codes, p, static_cast<size_t>(n) * 2);
        float f[16];
        for (int i = 0; i < 16; ++i) f[i] = f16_to_f32(codes[i]);
        return load(f);
    }
    static V load_bf16_part(const std::byte* p, int n) {
        uint16_t codes[16] = {};
        std::memcpy(codes, p, static_cast<size_t>(n) * 2);
        uint32_t bits[16];
        for (int i = 0; i < 16; ++i) bits[i] = uint32_t{codes[i]} << 16;
        V v;
        std::memcpy(&v, bits, sizeof v);
        return v;
    }

    static V add(V a, V b) {
        for (int i = 0; i < 4; ++i) a.q[i] += b.q[i];
        return a;
    }
    static V sub(V a, V b) {
        for (int i = 0; i < 4; ++i) a.q[i] -= b.q[i];
        return a;
    }
    static V mul(V a, V b) {
        for (int i = 0; i < 4; ++i) a.q[i] *= b.q[i];
        return a;
    }
    static V div(V a, V b) {
        for (int i = 0; i < 4; ++i) a.q[i] /= b.q[i];
        return a;
    }
    static V sqrt(V a) {
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) a.q[i][j] = __builtin_sqrtf(a.q[i][j]);
        return a;
    }
    /// a * b + c
    static V fma(V a, V b, V c) { return add(mul(a, b), c); }
    /// c - a * b
    static V fnma(V a, V b, V c) { return sub(c, mul(a, b)); }
    /// b where either is NaN
    static V max(V a, V b) {
        for (int i = 0; i < 4; ++i) a.q[i] = select(a.q[i] > b.q[i], a.q[i], b.q[i]);
        return a;
    }
    static V min(V a, V b) {
        for (int i = 0; i < 4; ++i) a.q[i] = select(a.q[i] < b.q[i], a.q[i], b.q[i]);
        return a;
    }
    /// To whole numbers, ties to even.
    static V round(V a) {
        constexpr float kWhole = 0x1p23f;  // floats from here on are whole
        const F4 most = set1(kWhole).q[0], zero = {};
        for (int i = 0; i < 4; ++i) {
            const F4 v = a.q[i], magic = select(v < zero, -most, most);
            a.q[i] = select((v < zero ? -v : v) < most, (v + magic) - magic, v);
        }
        return a;
    }
    /// 2^floor(log2 |a|); 0 for zeros and subnormal numbers.
    static V power(V a) {
        for (int i = 0; i < 4; ++i) a.q[i] = (F4)((I4)a.q[i] & 0x7f800000);
        return a;
    }
    /// ((0+8)+(4+12)) + ... : halves are added until one lane is left
    static float sum(V v) {
        const F4 a = (v.q[0] + v.q[2]) + (v.q[1] + v.q[3]);
        return (a[0] + a[2]) + (a[1] + a[3]);
    }
    /// The largest of 16 numbers.
    static float most(V v) {
        const F4 a = select(v.q[0] > v.q[2], v.q[0], v.q[2]);
        const F4 b = select(v.q[1] > v.q[3], v.q[1], v.q[3]);
        const F4 c = select(a > b, a, b);
        const float d = c[0] > c[2] ? c[0] : c[2], e = c[1] > c[3] ? c[1] : c[3];
        return d > e ? d : e;
    }
    /// a * 2^n for |n| <= 252, n = m - 1.5 * 2^23 whole
    static V scale2(V a, V m) {
        // In two factors, as 2^n itself may be no normal number.
        for (int i = 0; i < 4; ++i) {
            const I4 n = (I4)m.q[i] - 0x4b400000;
            const I4 n0 = n >> 1;
            const I4 n1 = n - n0;
            a.q[i] = a.q[i] * (F4)((n0 + 127) << 23) * (F4)((n1 + 127) << 23);
        }
        return a;
    }

    static V round_bf16(V v) {
        float f[16];
        store(f, v);
        for (float& a : f) a = bf16_to_f32(f32_to_bf16(a));
        return load(f);
    }
    static void store_bf16_part(uint16_t* p, int n, V v) {
        float f[16];
        store(f, v);
        for (int i = 0; i < n; ++i) p[i] = f32_to_bf16(f[i]);
    }
    static void store_f16_part(uint16_t* p, int n, V v) {
        float f[16];
        store(f, v);
        for (int i = 0; i < n; ++i) p[i] = f32_to_f16(f[i]);
    }
    /// Of whole numbers in [-128, 127]
    static void store_i8_part(int8_t* p, int n, V v) {
        float f[16];
        store(f, v);
        for (int i = 0; i < n; ++i) p[i] = static_cast<int8_t>(f[i]);
    }

  private:
    static F4 select(I4 mask, F4 a, F4 b) { return (F4)((mask & (I4)a) | (~mask & (I4)b)); }
};

}  // namespace
}  // namespace conclave::quant
