// The block types of GGUF: how the bytes of a block become codes, scales and zeros.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "quant/encoding.h"

namespace conclave::quant {

/// The largest of any type.
constexpr int64_t kMostBlockElements = 256, kMostBlockGroups = 16;

struct BlockType {
    const char* name = "";  ///< "Q4_K"
    int64_t elements = 0;   ///< of a block, in whole groups of `encoding`
    int64_t bytes = 0;
    Encoding encoding = {};
    /// A code per element; a scale and, where encoding.zero is not kNone, a zero per group, widened
    /// to f32. Products are rounded to f32 in the order of the type's definition.
    void (*decode)(const uint8_t* block, uint8_t* codes, float* scales, float* zeros) = nullptr;
    /// Where encoding.super > 0, the groups of a block being a super-block: the bytes at which its
    /// super-scale and super-zero (f16) lie.
    int super_scale_at = 0, super_zero_at = 0;
};

/// All of them.
std::span<const BlockType> block_types();
/// Null for a name that is none of theirs.
const BlockType* find_block_type(std::string_view name);

/// Those whose groups are entries of codebooks: IQ1, IQ2, IQ3.
std::span<const BlockType> grid_block_types();

/// A number of f16, low byte first.
float block_f16(const uint8_t* from);
/// Codes of kT4, `group` of which share a scale.
Encoding block_levels(std::shared_ptr<const Codebook> levels, FactorType scale, int64_t group);

}  // namespace conclave::quant
