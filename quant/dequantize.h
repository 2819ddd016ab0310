// Weights as numbers again.
#pragma once
#include "quant/encoding.h"
#include "quant/kernel.h"

namespace conclave::quant {

/// The numbers of row `row` of a tile, in the order of its columns: out[tile.cols], f32. An integer
/// code is (q - z) * s, every operand widened exactly and one rounding each; at its zero point it
/// is +0 whatever the sign of the scale.
void dequantize_row(const CodeTile& tile, const MatrixLayout& layout, int64_t row, float* out);

}  // namespace conclave::quant
