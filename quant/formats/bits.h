// Integer codes in 32-bit little-endian words.
#pragma once
#include <cstddef>
#include <cstdint>

namespace conclave::quant {

/// How codes of 1 to 8 bits lie in a sequence of words.
enum class Packing : uint8_t {
    kStream,   ///< one bit stream: code i occupies bits [bits * i, bits * (i + 1))
    kPerWord,  ///< 32 / bits whole codes a word, the other bits unused (compressed-tensors < 0.18)
    kPlanar,   ///< blocks of 32 codes as bit planes: 3 = 2+1, 5 = 4+1, 6 = 4+2, 7 = 4+2+1 (gptq_p)
    kAwq,      ///< 4 bits; code 8c + j of word c is nibble {0,4,1,5,2,6,3,7}[j]
};

/// Words that hold codes [0, count).
int64_t packed_words(Packing packing, int bits, int64_t count);
/// The words [first, second) that hold codes [begin, end).
struct WordRange {
    int64_t begin = 0, end = 0;
};
WordRange words_of(Packing packing, int bits, int64_t begin, int64_t end);

/// Codes [begin, end) into out[0 ...], `out_step` bytes apart. Word w is at
/// words + (w - first_word) * word_step bytes, any alignment; only words_of(begin, end) are read.
void unpack(Packing packing, int bits, const std::byte* words, int64_t word_step,
            int64_t first_word, int64_t begin, int64_t end, std::byte* out, int64_t out_step);

/// One word of eight 4-bit codes as eight bytes, the first code in the lowest.
constexpr uint64_t spread_stream4(uint32_t word) {
    uint64_t x = word;
    x = (x | x << 16) & 0x0000ffff0000ffffu;
    x = (x | x << 8) & 0x00ff00ff00ff00ffu;
    return (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
}
constexpr uint64_t spread_awq(uint32_t word) {
    uint64_t even = word & 0xffffu, odd = word >> 16;  // codes 0, 2, 4, 6 and 1, 3, 5, 7
    even = (even | even << 24) & 0x000000ff000000ffu;
    even = (even | even << 12) & 0x000f000f000f000fu;
    odd = (odd | odd << 24) & 0x000000ff000000ffu;
    odd = (odd | odd << 12) & 0x000f000f000f000fu;
    return even | odd << 8;
}

}  // namespace conclave::quant
