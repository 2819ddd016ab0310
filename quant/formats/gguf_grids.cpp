// IQ1, IQ2 and IQ3: 8 (4) neighbouring elements are one entry of a codebook, and of IQ2 and IQ3 a
// sign each.
//
// The codebooks are numbers that no rule gives; gguf_grids.inc has them as they are published, an
// entry a word: element i is in bits 2i, 2i + 1 of entries of 8 and in bits 3i ... 3i + 2 of
// entries of 4, as the index into the levels below. (Made of the arrays `grid` and `grid_map` of
// the Python package gguf 0.19: word = sum over i of grid_map.index(element i) << bits * i.)
#include <array>
#include <bit>
#include <cstring>

#include "quant/formats/gguf_blocks.h"

namespace conclave::quant {
namespace {

#include "quant/formats/gguf_grids.inc"

uint32_t half_word(const uint8_t* from) { return from[0] | uint32_t{from[1]} << 8; }
uint32_t word(const uint8_t* from) { return half_word(from) | half_word(from + 2) << 16; }

/// Code of an element: the index of its level, and this where it is negative (IQ1: where its delta
/// is).
constexpr uint8_t kNegative = 8;

/// Bit i of `signs` as bit 3 of byte i.
uint64_t sign_codes(uint32_t signs) {
    uint64_t x = signs & 255;
    x = (x | x << 28) & 0x0000000f0000000fu;
    x = (x | x << 14) & 0x0003000300030003u;
    return ((x | x << 7) & 0x0101010101010101u) * kNegative;
}
/// Seven signs; the eighth makes their number even.
uint64_t even_sign_codes(uint32_t signs) {
    signs &= 127;
    return sign_codes(signs | static_cast<uint32_t>(std::popcount(signs) & 1) << 7);
}
/// The eight indices of an entry, a byte each.
uint64_t entry8(uint16_t entry) {
    uint64_t x = entry;
    x = (x | x << 24) & 0x000000ff000000ffu;
    x = (x | x << 12) & 0x000f000f000f000fu;
    return (x | x << 6) & 0x0303030303030303u;
}
/// Those of two entries of four.
uint64_t entries4(uint16_t first, uint16_t second) {
    uint64_t x = first | uint64_t{second} << 32;
    x = (x & 0x0000003f0000003fu) | (x & 0x00000fc000000fc0u) << 10;
    return (x & 0x0007000700070007u) | (x & 0x0038003800380038u) << 5;
}
void put(uint64_t eight, uint8_t* codes) { std::memcpy(codes, &eight, 8); }

/// (0.5 + n) / 4 and / 2 of the types' definitions.
float half_steps(uint32_t n) { return 0.5f + static_cast<float>(n); }

void iq2_xxs(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    const float d = block_f16(b);
    b += 2;
    for (int i = 0; i < 8; ++i, b += 8) {
        const uint32_t more = word(b + 4);
        scales[i] = d * half_steps(more >> 28) * 0.25f;
        for (int l = 0; l < 4; ++l, codes += 8)
            put(entry8(kIq2xxsGrid[b[l]]) | even_sign_codes(more >> 7 * l), codes);
    }
}

void iq2_xs(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    const float d = block_f16(b);
    for (int i = 0; i < 16; ++i)
        scales[i] = d * half_steps(b[66 + i / 2] >> 4 * (i % 2) & 15) * 0.25f;
    for (int l = 0; l < 32; ++l, codes += 8) {
        const uint32_t v = half_word(b + 2 + 2 * l);
        put(entry8(kIq2xsGrid[v & 511]) | even_sign_codes(v >> 9), codes);
    }
}

void iq2_s(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    const float d = block_f16(b);
    for (int i = 0; i < 16; ++i)
        scales[i] = d * half_steps(b[74 + i / 2] >> 4 * (i % 2) & 15) * 0.25f;
    const uint8_t *qs = b + 2, *signs = b + 34, *qh = b + 66;
    for (int l = 0; l < 32; ++l, codes += 8) {
        const uint32_t high = qh[l / 4] >> 2 * (l % 4) & 3;
        put(entry8(kIq2sGrid[qs[l] | high << 8]) | sign_codes(signs[l]), codes);
    }
}

void iq3_xxs(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    const float d = block_f16(b);
    const uint8_t* index = b + 2;
    for (int i = 0; i < 8; ++i) {
        const uint32_t more = word(b + 66 + 4 * i);
        scales[i] = d * half_steps(more >> 28) * 0.5f;
        for (int l = 0; l < 4; ++l, index += 2, codes += 8)
            put(entries4(kIq3xxsGrid[index[0]], kIq3xxsGrid[index[1]]) |
                    even_sign_codes(more >> 7 * l),
                codes);
    }
}

void iq3_s(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    const float d = block_f16(b);
    for (int i = 0; i < 8; ++i)
        scales[i] = d * static_cast<float>(1 + 2 * (b[106 + i / 2] >> 4 * (i % 2) & 15));
    const uint8_t *qs = b + 2, *signs = b + 74;
    for (int l = 0; l < 32; ++l, qs += 2, codes += 8) {
        const uint32_t high = uint32_t{b[66 + l / 4]} >> 2 * (l % 4);
        put(entries4(kIq3sGrid[qs[0] | (high & 1) << 8], kIq3sGrid[qs[1] | (high >> 1 & 1) << 8]) |
                sign_codes(signs[l]),
            codes);
    }
}

void iq1_s(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    const float d = block_f16(b);
    const uint8_t* qs = b + 2;
    for (int i = 0; i < 8; ++i) {
        const uint32_t qh = half_word(b + 34 + 2 * i);
        scales[i] = d * static_cast<float>(2 * (qh >> 12 & 7) + 1);
        const uint64_t delta = sign_codes(qh >> 15 ? 255 : 0);
        for (int l = 0; l < 4; ++l, ++qs, codes += 8)
            put(entry8(kIq1Grid[*qs | (qh >> 3 * l & 7) << 8]) | delta, codes);
    }
}

void iq1_m(const uint8_t* b, uint8_t* codes, float* scales, float*) {
    uint32_t words[4], half = 0;
    for (int i = 0; i < 4; ++i) {
        words[i] = half_word(b + 48 + 2 * i);
        half |= words[i] >> 12 << 4 * i;
    }
    const uint8_t assembled[2] = {static_cast<uint8_t>(half), static_cast<uint8_t>(half >> 8)};
    const float d = block_f16(assembled);
    for (int i = 0; i < 16; ++i)
        scales[i] = d * static_cast<float>(2 * (words[i / 4] >> 3 * (i % 4) & 7) + 1);
    for (int l = 0; l < 32; ++l, codes += 8) {
        const uint32_t nibble = b[32 + l / 2] >> 4 * (l % 2) & 15;
        put(entry8(kIq1Grid[b[l] | (nibble & 7) << 8]) | sign_codes(nibble & 8 ? 255 : 0), codes);
    }
}

/// Negative numbers behind the positive ones.
std::shared_ptr<const Codebook> signed_levels(const char* name, std::array<float, 8> magnitudes) {
    std::array<float, 16> levels{};
    for (size_t i = 0; i < 8; ++i)
        levels[i] = magnitudes[i], levels[kNegative + i] = magnitudes[i] > 0 ? -magnitudes[i] : 0;
    return make_codebook(name, levels);
}

std::array<BlockType, 7> make_types() {
    const auto iq2 = signed_levels("iq2", {8, 25, 43});
    const auto iq3 = signed_levels("iq3", {1, 3, 5, 7, 9, 11, 13, 15});
    const auto iq3_x = signed_levels("iq3x", {4, 12, 20, 28, 36, 44, 52, 62});
    // -1, 0 and 1, plus or minus 1/8.
    const auto iq1 = make_codebook("iq1", {-0.875f, 0.125f, 1.125f, 0, 0, 0, 0, 0,  //
                                           -1.125f, -0.125f, 0.875f});
    constexpr auto kF32 = FactorType::kF32;
    return {{
        {"IQ2_XXS", 256, 66, block_levels(iq2, kF32, 32), iq2_xxs},
        {"IQ2_XS", 256, 74, block_levels(iq2, kF32, 16), iq2_xs},
        {"IQ2_S", 256, 82, block_levels(iq2, kF32, 16), iq2_s},
        {"IQ3_XXS", 256, 98, block_levels(iq3_x, kF32, 32), iq3_xxs},
        {"IQ3_S", 256, 110, block_levels(iq3, kF32, 32), iq3_s},
        {"IQ1_S", 256, 50, block_levels(iq1, kF32, 32), iq1_s},
        {"IQ1_M", 256, 56, block_levels(iq1, kF32, 16), iq1_m},
    }};
}

}  // namespace

std::span<const BlockType> grid_block_types() {
    static const std::array<BlockType, 7> types = make_types();
    return types;
}

}  // namespace conclave::quant
