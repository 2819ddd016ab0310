// Decoding cuts of a matrix whose stored pieces are in memory, with nothing staged but what needs()
// asks for.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "quant/codec.h"
#include "quant/dequantize.h"

namespace conclave::quant::test {

/// Every number of rows n x columns k, and where codes are scaled every code, scale and zero, by
/// column.
struct Decoded {
    int64_t rows = 0, cols = 0;
    std::vector<float> values;
    std::vector<uint8_t> codes;
    std::vector<float> scales, zeros;

    float value(int64_t i) const { return values[static_cast<size_t>(i)]; }
};

/// The layout of columns k of a matrix.
inline MatrixLayout layout_of(const StoredMatrix& m, Interval k) {
    MatrixLayout layout;
    layout.k = k.size();
    layout.encoding = m.encoding;
    layout.groups = local_grouping(m, k);
    layout.global = m.global;
    if (m.column_scale)
        layout.column_scale = std::make_shared<const std::vector<float>>(
            m.column_scale->begin() + k.begin, m.column_scale->begin() + k.end);
    return layout;
}

/// The numbers of a tile, row after row.
inline void append_values(const StoredMatrix& m, Interval k, const CodeTile& tile,
                          std::vector<float>& out) {
    const MatrixLayout layout = layout_of(m, k);
    const RowDecoder decoder(layout);
    std::vector<float> row(static_cast<size_t>(k.size()), -777.0f);
    for (int64_t r = 0; r < tile.rows; ++r) {
        decoder.decode(tile, r, row.data());
        out.insert(out.end(), row.begin(), row.end());
    }
}

inline int64_t group_of(const StoredMatrix& m, int64_t column) {
    if (m.group_of) return (*m.group_of)[static_cast<size_t>(column)];
    return m.encoding.group > 0 ? column / m.encoding.group : 0;
}

/// Copies `rect` of piece `i`, row by row, to out + r * row_bytes.
using ReadRect =
    std::function<void(size_t piece, const StoredRect& rect, std::byte* out, int64_t row_bytes)>;

inline Decoded decode_cut(const StoredMatrix& m, Interval n, Interval k, const ReadRect& read,
                          std::mt19937& rng) {
    constexpr std::byte kPoison{0xa5};
    std::vector<std::vector<std::byte>> buffers;
    std::vector<StagedRect> staged;
    for (size_t i = 0; i < m.pieces.size(); ++i) {
        const StoredPiece& p = m.pieces[i];
        const StoredRect rect = m.codec->needs(m, i, n, k);
        EXPECT_GE(rect.rows.begin, 0);
        EXPECT_LE(rect.rows.end, p.rows) << p.tensor;
        EXPECT_GE(rect.cols.begin, 0);
        EXPECT_LE(rect.cols.end, p.cols) << p.tensor;
        const int64_t width = rect.cols.size() * p.element_bytes;
        const int64_t row_bytes = width + static_cast<int64_t>(rng() % 9);
        // No byte beyond the last row, so that a sanitizer sees a read there.
        buffers.emplace_back(
            static_cast<size_t>(rect.rows.empty() ? 0 : (rect.rows.size() - 1) * row_bytes + width),
            kPoison);
        read(i, rect, buffers.back().data(), row_bytes);
        staged.push_back({rect, buffers.back().data(), row_bytes, {}});
    }
    const size_t scratch_bytes = m.codec->scratch_bytes(m, n, k), guard = 64;
    std::vector<std::byte> room(scratch_bytes + guard + 64, kPoison);
    std::byte* scratch = room.data() + (64 - reinterpret_cast<uintptr_t>(room.data()) % 64) % 64;
    const CodeTile tile = m.codec->decode(m, n, k, staged, scratch);
    for (size_t i = 0; i < guard; ++i) EXPECT_EQ(scratch[scratch_bytes + i], kPoison);
    EXPECT_EQ(tile.rows, n.size());
    EXPECT_EQ(tile.cols, k.size());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tile.scales) % sizeof(float), 0u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tile.zeros) % sizeof(float), 0u);

    Decoded d;
    d.rows = n.size(), d.cols = k.size();
    append_values(m, k, tile, d.values);
    EXPECT_EQ(tile.zeros != nullptr, m.encoding.zero != FactorType::kNone);
    EXPECT_EQ(tile.scales != nullptr, is_scaled(m.encoding.code));
    if (!tile.scales) return d;
    for (int64_t r = 0; r < d.rows; ++r)
        for (int64_t c = 0; c < d.cols; ++c) {
            const int64_t g = r * tile.factor_stride + group_of(m, k.begin + c) - tile.first_group;
            d.codes.push_back(static_cast<uint8_t>(tile.codes[r * tile.row_bytes + c]));
            d.scales.push_back(tile.scales[g]);
            d.zeros.push_back(tile.zeros ? tile.zeros[g]
                                         : static_cast<float>(m.encoding.zero_point));
        }
    return d;
}

}  // namespace conclave::quant::test
