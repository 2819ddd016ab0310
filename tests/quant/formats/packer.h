// Codes to words, bit by bit, as the formats define it: written apart from the decoder.
#pragma once
#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "quant/formats/bits.h"

namespace conclave::quant::test {

/// Bits that no code owns are random.
inline std::vector<uint32_t> pack(Packing packing, int bits, const std::vector<uint8_t>& codes,
                                  std::mt19937& rng) {
    const size_t n = codes.size(), b = static_cast<size_t>(bits);
    size_t words = (n * b + 31) / 32;
    if (packing == Packing::kPerWord) words = (n + 32 / b - 1) / (32 / b);
    if (packing == Packing::kPlanar && 32 % b != 0) words = (n + 31) / 32 * b;
    std::vector<uint32_t> out(words);
    for (uint32_t& w : out) w = static_cast<uint32_t>(rng());
    const auto put = [&](size_t at, uint32_t bit) {
        out[at / 32] = (out[at / 32] & ~(1u << at % 32)) | bit << at % 32;
    };
    // Planar: code bit -> which plane, its first bit and its width.
    struct Plane {
        size_t first, width;
    };
    const std::array<std::vector<Plane>, 9> planes = {{{},
                                                       {{0, 1}},
                                                       {{0, 2}},
                                                       {{0, 2}, {2, 1}},
                                                       {{0, 4}},
                                                       {{0, 4}, {4, 1}},
                                                       {{0, 4}, {4, 2}},
                                                       {{0, 4}, {4, 2}, {6, 1}},
                                                       {{0, 8}}}};
    for (size_t i = 0; i < n; ++i)
        for (size_t j = 0; j < b; ++j) {
            const uint32_t bit = codes[i] >> j & 1u;
            if (packing == Packing::kStream) {
                put(i * b + j, bit);
            } else if (packing == Packing::kPerWord) {
                put(i / (32 / b) * 32 + i % (32 / b) * b + j, bit);
            } else if (packing == Packing::kAwq) {
                const std::array<size_t, 8> nibble_of = {0, 4, 1, 5, 2, 6, 3, 7};
                put(i / 8 * 32 + nibble_of[i % 8] * 4 + j, bit);
            } else {
                for (const Plane& p : planes[b])
                    if (j >= p.first && j < p.first + p.width)
                        put((i / 32 * b + p.first) * 32 + i % 32 * p.width + j - p.first, bit);
            }
        }
    return out;
}

}  // namespace conclave::quant::test
