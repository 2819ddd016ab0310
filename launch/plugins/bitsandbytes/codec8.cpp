#include <bitsandbytes/codec8.h>

#include <cstring>

namespace bitsandbytes {

using namespace conclave;
using namespace conclave::quant;

namespace {

enum Piece : size_t { kCodes, kScales };

int64_t row_stride(Interval k) { return (ceil_div(k.size(), 64) | 1) * 64; }

}  // namespace

StoredRect Codec8::needs(const StoredMatrix& m, size_t piece, Interval n, Interval k) const {
    if (n.empty() || k.empty()) return {};
    return {m.source.stored_rows(n), piece == kCodes ? k : Interval{0, 1}};
}

size_t Codec8::scratch_bytes(const StoredMatrix&, Interval n, Interval k) const {
    return static_cast<size_t>(n.size() * (row_stride(k) + 4));
}

CodeTile Codec8::decode(const StoredMatrix& m, Interval n, Interval k,
                        std::span<const StagedRect> staged, std::byte* scratch) const {
    CodeTile tile;
    tile.rows = n.size(), tile.cols = k.size();
    if (n.empty() || k.empty()) return tile;
    const Interval rows = m.source.stored_rows(n);
    tile.codes = scratch, tile.row_bytes = row_stride(k);
    auto* scales = reinterpret_cast<float*>(scratch + n.size() * tile.row_bytes);
    tile.scales = scales, tile.factor_stride = 1;
    for (int64_t row = rows.begin; row < rows.end; ++row, scratch += tile.row_bytes) {
        const auto* __restrict from = reinterpret_cast<const uint8_t*>(
            staged[kCodes].row(row) + k.begin - staged[kCodes].rect.cols.begin);
        auto* __restrict to = reinterpret_cast<uint8_t*>(scratch);
        for (int64_t c = 0; c < k.size(); ++c) to[c] = from[c] ^ 128;
        std::memcpy(scales++, staged[kScales].row(row), 4);
    }
    return tile;
}

}  // namespace bitsandbytes
