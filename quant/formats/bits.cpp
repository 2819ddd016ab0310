#include "quant/formats/bits.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "runtime/base/interval.h"

namespace conclave::quant {
namespace {

/// Codes that never straddle words lie alike in all but AWQ's order.
Packing reduced(Packing packing, int bits) {
    return packing != Packing::kAwq && 32 % bits == 0 ? Packing::kStream : packing;
}

struct Words {
    const std::byte* data;
    int64_t step, first;

    uint32_t operator[](int64_t w) const {
        uint32_t v;
        std::memcpy(&v, data + (w - first) * step, 4);
        return v;
    }
};

uint32_t stream_code(const Words& words, int bits, int64_t i) {
    const int64_t at = i * bits;
    const int shift = static_cast<int>(at % 32);
    uint32_t v = words[at / 32] >> shift;
    if (shift + bits > 32) v |= words[at / 32 + 1] << (32 - shift);
    return v & ((1u << bits) - 1);
}

/// Widths of the bit planes of a code, low bits first; 0 ends them.
constexpr std::array<std::array<uint8_t, 3>, 9> kPlanes = {
    {{}, {1}, {2}, {2, 1}, {4}, {4, 1}, {4, 2}, {4, 2, 1}, {8}}};

uint32_t planar_code(const Words& words, int bits, int64_t i) {
    int64_t plane = i / 32 * bits;
    const int j = static_cast<int>(i % 32);
    uint32_t v = 0;
    int shift = 0;
    for (const int width : kPlanes[bits]) {
        if (width == 0) break;
        const int each = 32 / width;
        v |= (words[plane + j / each] >> (width * (j % each)) & ((1u << width) - 1)) << shift;
        plane += width;
        shift += width;
    }
    return v;
}

uint32_t awq_code(const Words& words, int64_t i) {
    constexpr std::array<uint8_t, 8> kNibble = {0, 4, 1, 5, 2, 6, 3, 7};
    return words[i / 8] >> (4 * kNibble[i % 8]) & 15u;
}

uint32_t code_at(Packing packing, int bits, const Words& words, int64_t i) {
    switch (packing) {
        case Packing::kStream:
            return stream_code(words, bits, i);
        case Packing::kPlanar:
            return planar_code(words, bits, i);
        case Packing::kAwq:
            return awq_code(words, i);
        case Packing::kPerWord:
            break;
    }
    const int each = 32 / bits;
    return words[i / each] >> (bits * (i % each)) & ((1u << bits) - 1);
}

/// Whole words of codes [begin, end), both multiples of the codes in a word.
void unpack_words(Packing packing, int bits, const Words& words, int64_t begin, int64_t end,
                  std::byte* out) {
    if (bits == 8) {
        for (int64_t i = begin; i < end; i += 4, out += 4) {
            const uint32_t word = words[i / 4];
            std::memcpy(out, &word, 4);
        }
        return;
    }
    for (int64_t i = begin; i < end; i += 8, out += 8) {
        const uint32_t word = words[i / 8];
        const uint64_t codes = packing == Packing::kAwq ? spread_awq(word) : spread_stream4(word);
        std::memcpy(out, &codes, 8);
    }
}

/// Eight codes that follow each other from bit 0 of `x`, as eight bytes: halved three times.
uint64_t spread(uint64_t x, int bits) {
    const uint64_t one = ((1u << bits) - 1) * 0x0001000100010001u;
    const uint64_t two = ((1u << 2 * bits) - 1) * 0x0000000100000001u;
    const uint64_t four = (1u << 4 * bits) - 1;
    x = (x & four) | (x >> 4 * bits & four) << 32;
    x = (x & two) | (x >> 2 * bits & two) << 16;
    return (x & one) | (x >> bits & one) << 8;
}

/// Codes [begin, end), both multiples of 32, of one stream or of planes, which are streams each.
void unpack_blocks(Packing packing, int bits, const Words& words, int64_t begin, int64_t end,
                   std::byte* out) {
    const std::array<uint8_t, 3> whole = {static_cast<uint8_t>(bits), 0, 0};
    const auto& planes = packing == Packing::kPlanar ? kPlanes[bits] : whole;
    for (int64_t i = begin; i < end; i += 32, out += 32) {
        std::array<uint32_t, 10> block{};  // 8 codes are read as 8 bytes: 2 words more
        for (int w = 0; w < bits; ++w) block[w] = words[i / 32 * bits + w];
        std::array<uint64_t, 4> codes{};
        const auto* bytes = reinterpret_cast<const std::byte*>(block.data());
        int shift = 0;
        for (const int width : planes) {
            if (width == 0) break;
            for (int eight = 0; eight < 4; ++eight) {
                uint64_t x;
                std::memcpy(&x, bytes + width * eight, 8);
                codes[eight] |= spread(x, width) << shift;
            }
            bytes += 4 * width;
            shift += width;
        }
        std::memcpy(out, codes.data(), 32);
    }
}

}  // namespace

int64_t packed_words(Packing packing, int bits, int64_t count) {
    return words_of(packing, bits, 0, count).end;
}

WordRange words_of(Packing packing, int bits, int64_t begin, int64_t end) {
    if (end <= begin) return {};
    switch (reduced(packing, bits)) {
        case Packing::kStream:
            return {begin * bits / 32, ceil_div(end * bits, 32)};
        case Packing::kPlanar:
            return {begin / 32 * bits, ceil_div(end, 32) * bits};
        case Packing::kAwq:
            return {begin / 8, ceil_div(end, 8)};
        case Packing::kPerWord:
            break;
    }
    const int each = 32 / bits;
    return {begin / each, ceil_div(end, each)};
}

void unpack(Packing packing, int bits, const std::byte* words, int64_t word_step,
            int64_t first_word, int64_t begin, int64_t end, std::byte* out, int64_t out_step) {
    const Words from{words, word_step, first_word};
    const Packing kind = reduced(packing, bits);
    const auto simple = [&](int64_t until) {
        for (; begin < until; ++begin, out += out_step)
            *out = static_cast<std::byte>(code_at(kind, bits, from, begin));
    };
    const bool bytes = bits == 4 || bits == 8;
    if (out_step == 1 && kind != Packing::kPerWord) {
        const int64_t each = bytes ? 32 / bits : 32;
        const int64_t first = std::min(end, round_up(begin, each)), last = end / each * each;
        simple(first);
        if (last > first) {
            (bytes ? unpack_words : unpack_blocks)(kind, bits, from, first, last, out);
            out += last - first;
            begin = last;
        }
    }
    simple(end);
}

}  // namespace conclave::quant
