#include "quant/dequantize.h"

#include <cmath>
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

/// What a code stands for before scaling, as a table of all 256 (16) codes.
std::array<float, 256> code_values(const Encoding& e) {
    std::array<float, 256> values{};
    for (int c = 0; c < 256; ++c) {
        float v = static_cast<float>(c);
        if (e.code == CodeType::kT4) v = e.levels->levels[static_cast<size_t>(c & 15)];
        if (e.code == CodeType::kE4M3 || e.code == CodeType::kE4M3N) {
            v = e4m3_value(static_cast<uint8_t>(c));
            if (e.code == CodeType::kE4M3 && (c & 127) == 127) v = std::copysign(std::nanf(""), v);
        }
        values[static_cast<size_t>(c)] = v;
    }
    return values;
}

}  // namespace

float e4m3_value(uint8_t code) {
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    const float v = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                  : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    return code & 128 ? -v : v;
}

RowDecoder::RowDecoder(const MatrixLayout& layout) : layout_(layout) {
    if (is_scaled(layout.encoding.code)) values_ = code_values(layout.encoding);
}

void RowDecoder::decode(const CodeTile& tile, int64_t row, float* out) const {
    const Encoding& e = layout_.encoding;
    const std::byte* codes = tile.codes + row * tile.row_bytes;
    if (!is_scaled(e.code)) {
        widen(e.code, codes, tile.cols, out);
    } else {
        const bool integer = is_integer(e.code);
        const float* scales = tile.scales + row * tile.factor_stride;
        const float* zeros = tile.zeros ? tile.zeros + row * tile.factor_stride : nullptr;
        const auto& order = layout_.groups->order;
        const float nothing = e.signed_zeros ? -0.0f : 0.0f;
        int64_t c = 0;
        for (const Run& run : layout_.groups->runs) {
            const int64_t g = run.group - tile.first_group;
            const GlobalScale& global = layout_.global;
            const float scale = global.last ? scales[g] : global.of(scales[g]);
            const float point = !integer                 ? 0
                                : zeros && !e.zero_added ? zeros[g]
                                                         : static_cast<float>(e.zero_point);
            for (int64_t end = c + run.columns; c < end; ++c) {
                const int64_t at = order.empty() ? c : order[static_cast<size_t>(c)];
                const float value = values_[static_cast<size_t>(codes[at])];
                if (!integer)
                    out[at] = value * scale;
                else
                    out[at] = (value - point) * scale + (e.zero_added ? zeros[g] : nothing);
                if (global.last) out[at] = global.of(out[at]);
            }
        }
    }
    if (!layout_.column_scale) return;
    for (int64_t c = 0; c < tile.cols; ++c)
        out[c] *= (*layout_.column_scale)[static_cast<size_t>(c)];
}

}  // namespace conclave::quant
