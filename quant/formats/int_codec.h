// The codec of integer formats whose codes, scales and zeros are grids of words and numbers: GPTQ,
// AWQ, AutoRound, compressed-tensors. A format is a value of IntStorage.
#pragma once
#include <array>
#include <memory>

#include "quant/codec.h"
#include "quant/formats/bits.h"

namespace conclave::quant {

/// What a stored zero point stands for.
enum class ZeroRule : uint8_t {
    kAsStored,
    kPlusOne,   ///< GPTQ v1: (stored + 1) & (2^bits - 1), code by code
    kWordsAdd,  ///< GPTQ v1 as GPTQModel writes it: zero_words are added to the words, wrapping
};

struct IntStorage {
    int bits = 4;
    /// Codes are either words (element_bytes 4) or signed bytes, one a code (element_bytes 1):
    /// unsigned code = byte + 2^(bits - 1).
    bool bytes = false;
    Packing packing = Packing::kStream;
    /// The axis of the logical matrix along which words run: K ([words, N] where `transposed`,
    /// else [N, words]) or N ([K, words], always transposed).
    bool words_along_n = false;
    bool transposed = false;
    bool scales_transposed = false;  ///< [G, N]; else [N, G]
    /// Zeros: words along N, [G, words] where `scales_transposed`, else [words, G]; or signed bytes
    /// [N, G] (with `bytes`).
    ZeroRule zero_rule = ZeroRule::kAsStored;
    std::array<uint32_t, 3> zero_words{};  ///< added to word w: zero_words[w % zero_word_count]
    int zero_word_count = 1;
};

/// Pieces of a matrix with this codec: 0 codes, 1 scales, 2 zeros where encoding.zero is kU8.
std::shared_ptr<const Codec> int_codec(const IntStorage& storage);

}  // namespace conclave::quant
