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
    /// Bytes hold two signed 4-bit codes, of rows 2r (low nibble) and 2r + 1: [N / 2, K].
    bool row_pairs = false;
    /// Words hold codes, and integer zeros, in two's complement: unsigned code = theirs ^ 2^(bits -
    /// 1).
    bool is_signed = false;
    Packing packing = Packing::kStream;
    /// The axis of the logical matrix along which words run: K ([words, N] where `transposed`,
    /// else [N, words]) or N ([K, words], always transposed).
    bool words_along_n = false;
    bool transposed = false;
    bool scales_transposed = false;  ///< [G, N]; else [N, G]
    /// Integer zeros: words along N, [G, words] where `scales_transposed`, else [words, G]; or
    /// signed bytes (with `bytes`), laid out as the scales. Float zeros lie as the scales do.
    ZeroRule zero_rule = ZeroRule::kAsStored;
    std::array<uint32_t, 3> zero_words{};  ///< added to word w: zero_words[w % zero_word_count]
    int zero_word_count = 1;
};

/// Pieces of a matrix with this codec: 0 codes, 1 scales, 2 zeros where encoding.zero is not kNone.
std::shared_ptr<const Codec> int_codec(const IntStorage& storage);

/// Number of groups along k columns of an encoding.
inline int64_t group_count(int64_t k, int64_t group) { return group > 0 ? ceil_div(k, group) : 1; }

/// The pieces of `source` in `storage`, tensors named STEM + suffix. encoding.bits is storage.bits.
/// Where encoding.group_rows is 0, all rows share one row of scales, and of zeros that are no
/// words.
StoredMatrix int_matrix(const MatrixSource& source, const Encoding& encoding,
                        const IntStorage& storage, const std::array<const char*, 3>& suffixes);

/// A matrix of any integer encoding whose tensors are in no file: words along K, [N, words].
StoredMatrix imagined_int_matrix(const MatrixSource& source, const Encoding& encoding);

}  // namespace conclave::quant
