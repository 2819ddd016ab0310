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

}  // namespace conclave::quant
