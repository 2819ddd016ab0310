// One number at a time between float and the 16-bit formats, as stored (uint16_t bit patterns).
// To 16 bits: rounded to nearest, ties to even; overflow gives infinity; a NaN stays a NaN (quiet,
// upper payload bits kept). From 16 bits: exact.
#pragma once
#include <bit>
#include <cstdint>

namespace conclave {

constexpr float bf16_to_f32(uint16_t h) { return std::bit_cast<float>(uint32_t{h} << 16); }

constexpr uint16_t f32_to_bf16(float f) {
    const auto u = std::bit_cast<uint32_t>(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(u >> 16 | 0x40u);
    return static_cast<uint16_t>((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

constexpr float f16_to_f32(uint16_t h) {
    const uint32_t sign = uint32_t{h & 0x8000u} << 16;
    const uint32_t exponent = h >> 10 & 0x1fu;
    const uint32_t mantissa = h & 0x3ffu;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal or zero: exact
    return sign ? -magnitude : magnitude;
}

constexpr uint16_t f32_to_f16(float f) {
    const auto u = std::bit_cast<uint32_t>(f);
    const auto sign = static_cast<uint16_t>(u >> 16 & 0x8000u);
    const uint32_t magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 2^16 and above
    if (magnitude < 0x33000000u) return sign;                                    // below 2^-25
    uint32_t significand = magnitude;  // exponent and mantissa bits, as wanted after the shift
    uint32_t shift = 13;
    if (magnitude >= 0x38800000u) {  // normal in f16: from 2^-14
        significand -= 112u << 23;
    } else {
        significand = (magnitude & 0x7fffffu) | 0x800000u;
        shift = 126 - (magnitude >> 23);
    }
    const uint32_t kept = significand >> shift;
    const uint32_t rest = significand & ((1u << shift) - 1);
    const uint32_t half = 1u << (shift - 1);
    const bool up = rest > half || (rest == half && (kept & 1));
    return static_cast<uint16_t>(sign | (kept + up));
}

}  // namespace conclave
