#include "quant/formats/gguf_blocks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "quant/dequantize.h"
#include "runtime/base/half.h"

namespace conclave::quant {
namespace {

// Bytes of blocks are named as the type's definition has them: d and dmin are f16, qs the low bits
// of the codes, qh or hmask their high bits.

uint32_t word(const uint8_t* from) {
    return from[0] | uint32_t{from[1]} << 8 | uint32_t{from[2]} << 16 | uint32_t{from[3]} << 24;
}

/// Codes 0 ... n - 1 from the low nibbles of n bytes, the next n from the high ones.
void nibbles(const uint8_t* qs, int n, uint8_t* codes) {
    for (int j = 0; j < n; ++j) codes[j] = qs[j] & 15, codes[n + j] = qs[j] >> 4;
}

/// Bit 4 of 32 codes.
void fifth_bits(const uint8_t* qh, uint8_t* codes) {
    const uint32_t bits = word(qh);
    for (int j = 0; j < 32; ++j) codes[j] |= static_cast<uint8_t>((bits >> j & 1) << 4);
}

void q4_0(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    scales[0] = block_f16(b);
    nibbles(b + 2, 16, codes);
}
void q4_1(const uint8_t* b, uint8_t* codes, float* scales, float* zeros) {
    scales[0] = block_f16(b), zeros[0] = block_f16(b + 2);
    nibbles(b + 4, 16, codes);
}
void q5_0(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    scales[0] = block_f16(b);
    nibbles(b + 6, 16, codes);
    fifth_bits(b + 2, codes);
}
void q5_1(const uint8_t* b, uint8_t* codes, float* scales, float* zeros) {
    scales[0] = block_f16(b), zeros[0] = block_f16(b + 2);
    nibbles(b + 8, 16, codes);
    fifth_bits(b + 4, codes);
}
/// Signed bytes, plus 128.
void q8_0(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    scales[0] = block_f16(b);
    for (int j = 0; j < 32; ++j) codes[j] = b[2 + j] ^ 0x80;
}

/// Codes of two bits, 256 of them: chunks of 32 bytes hold 32 codes in bits 0 and 1 and so on.
void two_bits(const uint8_t* qs, uint8_t* codes) {
    for (int chunk = 0; chunk < 2; ++chunk, qs += 32)
        for (int shift = 0; shift < 8; shift += 2, codes += 32)
            for (int j = 0; j < 32; ++j) codes[j] = qs[j] >> shift & 3;
}

void q2_k(const uint8_t* b, uint8_t* codes, float* scales, float* zeros) {
    const float d = block_f16(b + 80), dmin = block_f16(b + 82);
    for (int i = 0; i < 16; ++i) {
        scales[i] = d * static_cast<float>(b[i] & 15);
        zeros[i] = -(dmin * static_cast<float>(b[i] >> 4));
    }
    two_bits(b + 16, codes);
}

void q3_k(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    const uint8_t *hmask = b, *s = b + 96;
    const float d = block_f16(b + 108);
    for (int i = 0; i < 16; ++i) {
        const int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4, high = s[8 + i % 4] >> 2 * (i / 4) & 3;
        scales[i] = d * static_cast<float>((low | high << 4) - 32);
    }
    two_bits(b + 32, codes);
    for (int bit = 0; bit < 8; ++bit, codes += 32)
        for (int j = 0; j < 32; ++j) codes[j] |= static_cast<uint8_t>((hmask[j] >> bit & 1) << 2);
}

/// The eight scales and minima of Q4_K and Q5_K: 6 bits each, in 12 bytes.
void six_bit_factors(const uint8_t* b, float* scales, float* zeros) {
    const float d = block_f16(b), dmin = block_f16(b + 2);
    const uint8_t* s = b + 4;
    for (int j = 0; j < 8; ++j) {
        const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        const int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
        scales[j] = d * static_cast<float>(scale);
        zeros[j] = -(dmin * static_cast<float>(min));
    }
}

void q4_k(const uint8_t* b, uint8_t* codes, float* scales, float* zeros) {
    six_bit_factors(b, scales, zeros);
    for (int i = 0; i < 4; ++i) nibbles(b + 16 + 32 * i, 32, codes + 64 * i);
}

void q5_k(const uint8_t* b, uint8_t* codes, float* scales, float* zeros) {
    six_bit_factors(b, scales, zeros);
    for (int i = 0; i < 4; ++i) nibbles(b + 48 + 32 * i, 32, codes + 64 * i);
    const uint8_t* qh = b + 16;
    for (int bit = 0; bit < 8; ++bit, codes += 32)
        for (int j = 0; j < 32; ++j) codes[j] |= static_cast<uint8_t>((qh[j] >> bit & 1) << 4);
}

void q6_k(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    const float d = block_f16(b + 208);
    for (int i = 0; i < 16; ++i)
        scales[i] = d * static_cast<float>(static_cast<int8_t>(b[192 + i]));
    for (int h = 0; h < 2; ++h) {
        const uint8_t *ql = b + 64 * h, *qh = b + 128 + 32 * h;
        for (int g = 0; g < 4; ++g, codes += 32)
            for (int j = 0; j < 32; ++j)
                codes[j] = static_cast<uint8_t>((ql[32 * (g & 1) + j] >> (g < 2 ? 0 : 4) & 15) |
                                                (qh[j] >> 2 * g & 3) << 4);
    }
}

void iq4_xs(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    const float d = block_f16(b);
    const int high = b[2] | b[3] << 8;
    for (int i = 0; i < 8; ++i) {
        const int scale = (b[4 + i / 2] >> 4 * (i % 2) & 15) | (high >> 2 * i & 3) << 4;
        scales[i] = d * static_cast<float>(scale - 32);
        nibbles(b + 8 + 16 * i, 16, codes + 32 * i);
    }
}

/// Digit `n` of a byte that holds digits of base 3 as a fraction.
uint8_t ternary(uint8_t byte, int n) {
    constexpr int kPowers[] = {1, 3, 9, 27, 81};
    return static_cast<uint8_t>((byte * kPowers[n] & 255) * 3 >> 8);
}

void tq1_0(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    scales[0] = block_f16(b + 52);
    const auto digits = [&](int bytes, int count) {
        for (int n = 0; n < count; ++n)
            for (int i = 0; i < bytes; ++i) *codes++ = ternary(b[i], n);
        b += bytes;
    };
    digits(32, 5);
    digits(16, 5);
    digits(4, 4);
}
void tq2_0(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    scales[0] = block_f16(b + 64);
    two_bits(b, codes);
}

void mxfp4(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    scales[0] = b[0] == 255 ? std::nanf("") : std::ldexp(1.0f, b[0] - 127);
    nibbles(b + 1, 16, codes);
}
/// The sign of a scale counts for nothing, and what is NaN in E4M3 is 0.
void nvfp4(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    for (int i = 0; i < 4; ++i) {
        const uint8_t scale = b[i] & 0x7f;
        scales[i] = scale == 0x7f ? 0 : e4m3_value(scale);
        nibbles(b + 4 + 8 * i, 8, codes + 16 * i);
    }
}

void q1_0(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    scales[0] = block_f16(b);
    for (int j = 0; j < 128; ++j) codes[j] = b[2 + j / 8] >> j % 8 & 1;
}
void q2_0(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    scales[0] = block_f16(b);
    for (int j = 0; j < 64; ++j) codes[j] = b[2 + j / 4] >> 2 * (j % 4) & 3;
}

Encoding integers(int bits, int zero_point, FactorType scale, int64_t group) {
    Encoding e;
    constexpr CodeType kCodes[] = {CodeType::kU2, CodeType::kU2, CodeType::kU2,
                                   CodeType::kU3, CodeType::kU4, CodeType::kU5,
                                   CodeType::kU6, CodeType::kU8, CodeType::kU8};
    e.code = kCodes[bits];
    e.bits = bits, e.zero_point = zero_point, e.scale = scale, e.group = group;
    e.signed_zeros = true;
    return e;
}
Encoding with_minima(int bits, FactorType factors, int64_t group) {
    Encoding e = integers(bits, 0, factors, group);
    e.zero = factors, e.zero_added = true;
    return e;
}

/// Scales, and minima if there are any, are integers under those of blocks of 256.
Encoding super(Encoding e) {
    e.super = static_cast<int>(256 / e.group);
    e.scale = FactorType::kI8;
    if (e.zero != FactorType::kNone) e.zero = FactorType::kU8;
    return e;
}

std::vector<BlockType> make_types() {
    constexpr auto kF16 = FactorType::kF16;
    // Not fp4_codebook(): code 8 is +0 here.
    const auto fp4 =
        make_codebook("fp4", {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0, -0.5f, -1, -1.5f, -2, -3, -4, -6});
    const auto iq4 = make_codebook(
        "iq4", {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113});
    const auto signs = make_codebook("sign", {-1, 1});
    std::vector<BlockType> types = {
        {"Q4_0", 32, 18, integers(4, 8, kF16, 32), q4_0},
        {"Q4_1", 32, 20, with_minima(4, kF16, 32), q4_1},
        {"Q5_0", 32, 22, integers(5, 16, kF16, 32), q5_0},
        {"Q5_1", 32, 24, with_minima(5, kF16, 32), q5_1},
        {"Q8_0", 32, 34, integers(8, 128, kF16, 32), q8_0},
        {"Q2_K", 256, 84, super(with_minima(2, kF16, 16)), q2_k, 80, 82},
        {"Q3_K", 256, 110, super(integers(3, 4, kF16, 16)), q3_k, 108},
        {"Q4_K", 256, 144, super(with_minima(4, kF16, 32)), q4_k, 0, 2},
        {"Q5_K", 256, 176, super(with_minima(5, kF16, 32)), q5_k, 0, 2},
        {"Q6_K", 256, 210, super(integers(6, 32, kF16, 16)), q6_k, 208},
        {"IQ4_NL", 32, 18, block_levels(iq4, kF16, 32), q4_0},
        {"IQ4_XS", 256, 136, super(block_levels(iq4, kF16, 32)), iq4_xs, 0},
        {"TQ1_0", 256, 54, integers(2, 1, kF16, 256), tq1_0},
        {"TQ2_0", 256, 66, integers(2, 1, kF16, 256), tq2_0},
        {"MXFP4", 32, 17, block_levels(fp4, FactorType::kE8M0, 32), mxfp4},
        {"NVFP4", 64, 36, block_levels(fp4, FactorType::kE4M3, 16), nvfp4},
        {"Q1_0", 128, 18, block_levels(signs, kF16, 128), q1_0},
        {"Q2_0", 64, 18, integers(2, 1, kF16, 64), q2_0},
    };
    const auto grids = grid_block_types();
    types.insert(types.end(), grids.begin(), grids.end());
    return types;
}

}  // namespace

float block_f16(const uint8_t* from) {
    return f16_to_f32(static_cast<uint16_t>(from[0] | from[1] << 8));
}

Encoding block_levels(std::shared_ptr<const Codebook> levels, FactorType scale, int64_t group) {
    Encoding e;
    e.code = CodeType::kT4, e.levels = std::move(levels);
    e.scale = scale, e.group = group;
    return e;
}

std::span<const BlockType> block_types() {
    static const std::vector<BlockType> types = make_types();
    return types;
}

const BlockType* find_block_type(std::string_view name) {
    const auto types = block_types();
    const auto it = std::find_if(types.begin(), types.end(),
                                 [&](const BlockType& t) { return name == t.name; });
    return it == types.end() ? nullptr : &*it;
}

}  // namespace conclave::quant
