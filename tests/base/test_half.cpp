#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "runtime/base/half.h"

namespace conclave {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

bool same(float a, float b) {
    return (std::isnan(a) && std::isnan(b)) ||
           std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

/// The definition, from the parts of the pattern.
float value_of(uint16_t h, int exponent_bits, int mantissa_bits) {
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = h >> mantissa_bits & ((1 << exponent_bits) - 1);
    const int mantissa = h & ((1 << mantissa_bits) - 1);
    double v;
    if (exponent == (1 << exponent_bits) - 1) {
        v = mantissa ? std::nan("") : double{kInf};
    } else if (exponent == 0) {
        v = std::ldexp(mantissa, 1 - bias - mantissa_bits);
    } else {
        v = std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
    }
    return static_cast<float>(h >> 15 ? -v : v);
}

/// Nearest pattern by search among the two neighbours, ties to the even one. `decode` is monotonic
/// in the magnitude bits; `infinity` is the pattern above the largest finite one.
template <class Decode>
uint16_t nearest(float f, uint16_t infinity, double past_largest, Decode decode) {
    const uint16_t sign = std::signbit(f) ? 0x8000 : 0;
    const double magnitude = std::fabs(double{f});
    uint16_t low = 0, high = infinity;  // decode(low) <= magnitude < decode(high)
    if (std::isinf(f)) return sign | infinity;
    while (high - low > 1) {
        const auto middle = static_cast<uint16_t>((low + high) / 2);
        (double{decode(middle)} <= magnitude ? low : high) = middle;
    }
    const double below = magnitude - double{decode(low)};
    const double above = (high == infinity ? past_largest : double{decode(high)}) - magnitude;
    if (below == above) return sign | (low & 1 ? high : low);
    return sign | (below < above ? low : high);
}

TEST(Half, FromSixteenBitsIsExact) {
    for (uint32_t h = 0; h < 0x10000; ++h) {
        const auto bits = static_cast<uint16_t>(h);
        ASSERT_TRUE(same(f16_to_f32(bits), value_of(bits, 5, 10))) << h;
        ASSERT_TRUE(same(bf16_to_f32(bits), value_of(bits, 8, 7))) << h;
    }
}

TEST(Half, RoundTripKeepsEveryPattern) {
    for (uint32_t h = 0; h < 0x10000; ++h) {
        const auto bits = static_cast<uint16_t>(h);
        const bool nan16 = (bits & 0x7fff) > 0x7c00, nan_b = (bits & 0x7fff) > 0x7f80;
        ASSERT_EQ(f32_to_f16(f16_to_f32(bits)), nan16 ? bits | 0x200 : bits) << h;
        ASSERT_EQ(f32_to_bf16(bf16_to_f32(bits)), nan_b ? bits | 0x40 : bits) << h;
    }
}

TEST(Half, RoundsToNearestEven) {
    std::mt19937 random(11);
    for (int i = 0; i < 300'000; ++i) {
        uint32_t bits = static_cast<uint32_t>(random());
        if (i % 3 == 0) bits = (bits & 0x8fffffffu) | 0x38000000u;  // about the f16 normals
        if (i % 3 == 1) bits = (bits & 0x83ffe000u) | 0x32000000u | (i % 2 ? 0x1000u : 0);  // ties
        if (i % 5 == 0) bits &= 0xffff8000u;  // bf16 ties
        const auto f = std::bit_cast<float>(bits);
        if (std::isnan(f)) continue;
        ASSERT_EQ(f32_to_f16(f), nearest(f, 0x7c00, 65536.0, f16_to_f32)) << f;
        ASSERT_EQ(f32_to_bf16(f), nearest(f, 0x7f80, 0x1p128, bf16_to_f32)) << f;
    }
}

TEST(Half, Edges) {
    EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
    EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
    EXPECT_EQ(f32_to_f16(-kInf), 0xfc00);
    EXPECT_EQ(f32_to_f16(0x1p-25f), 0);
    EXPECT_EQ(f32_to_f16(0x1.000002p-25f), 1);
    EXPECT_EQ(f32_to_f16(-0x1p-30f), 0x8000);
    EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
    EXPECT_EQ(f32_to_bf16(-0.0f), 0x8000);
    // A NaN whose payload is all in the bits that are cut off must not become infinity.
    const auto low_nan = std::bit_cast<float>(0xff800001u);
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(low_nan))));
    EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(low_nan))));
    const auto high_nan = std::bit_cast<float>(0x7fffffffu);
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(high_nan))));
}

}  // namespace
}  // namespace conclave
