#include "quant/dequantize.h"

#include <cstring>

#include "runtime/base/half.h"

namespace conclave::quant {
namespace {

void widen(CodeType code, const std::byte* from, int64_t n, float* out) {
    if (code == CodeType::kF32) {
        std::memcpy(out, from, static_cast<size_t>(n) * sizeof(float));
        return;
    }
    for (int64_t c = 0; c < n; ++c) {
        uint16_t half;
        std::memcpy(&half, from + 2 * c, sizeof half);
        out[c] = code == CodeType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
    }
}

}  // namespace

void dequantize_row(const CodeTile& tile, const MatrixLayout& layout, int64_t row, float* out) {
    const std::byte* codes = tile.codes + row * tile.row_bytes;
    if (!is_integer(layout.encoding.code))
        return widen(layout.encoding.code, codes, tile.cols, out);
    const Grouping& groups = *layout.groups;
    const float* scales = tile.scales + row * tile.factor_stride;
    const float* zeros = tile.zeros ? tile.zeros + row * tile.factor_stride : nullptr;
    int64_t c = 0;
    for (const Run& run : groups.runs) {
        const int64_t g = run.group - tile.first_group;
        const float scale = scales[g];
        const float zero = zeros ? zeros[g] : static_cast<float>(layout.encoding.zero_point);
        for (int64_t end = c + run.columns; c < end; ++c) {
            const int64_t at = groups.order.empty() ? c : groups.order[static_cast<size_t>(c)];
            const float value = (static_cast<float>(codes[at]) - zero) * scale;
            out[at] = value + 0.0f;
        }
    }
}

}  // namespace conclave::quant
