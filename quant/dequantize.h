// Weights as numbers again.
#pragma once
#include <array>
#include <cstdint>

#include "quant/encoding.h"
#include "quant/kernel.h"

namespace conclave::quant {

/// What a byte of E4M3FN stands for, 0x7f and 0xff taken as 480 and -480 (CodeType::kE4M3N).
float e4m3_value(uint8_t code);

/// Decodes rows of matrices of one layout, which must outlive it.
class RowDecoder {
  public:
    explicit RowDecoder(const MatrixLayout& layout);

    /// The numbers of row `row` of a tile, in the order of its columns: out[tile.cols], f32, as
    /// Encoding says, times the column's scale. An integer code at its zero point is +0 whatever
    /// the sign of the scale, but for Encoding::signed_zeros.
    void decode(const CodeTile& tile, int64_t row, float* out) const;

  private:
    const MatrixLayout& layout_;
    std::array<float, 256> values_{};  ///< of scaled codes, before scaling
};

}  // namespace conclave::quant
