#include <bitsandbytes/codec4.h>

#include <algorithm>
#include <cstring>

namespace bitsandbytes {

using namespace conclave;
using namespace conclave::quant;

namespace {

enum Piece : size_t { kCodes, kAbsmax, kNestedAbsmax };

/// Columns of a group of the encoding: each is of one block wherever its row begins.
int64_t run_columns(const StoredMatrix& m) {
    return m.encoding.group > 0 ? m.encoding.group : m.source.k;
}

Interval runs_of(const StoredMatrix& m, Interval k) {
    if (k.empty()) return {0, 0};
    return {k.begin / run_columns(m), ceil_div(k.end, run_columns(m))};
}

/// From one decoded row to the next: an odd number of cache lines, so that a column of codes
/// spreads over the sets of the cache.
int64_t row_stride(Interval k) { return (ceil_div(k.size(), 64) | 1) * 64; }

/// `count` nibbles, of which the first is the low one of its byte where `odd`.
void unpack(const std::byte* from, bool odd, int64_t count, std::byte* out) {
    const auto* __restrict in = reinterpret_cast<const uint8_t*>(from);
    auto* __restrict to = reinterpret_cast<uint8_t*>(out);
    if (odd && count > 0) *to++ = *in++ & 15, --count;
    const int64_t pairs = count / 2;
    for (int64_t i = 0; i < pairs; ++i) {
        to[2 * i] = in[i] >> 4;
        to[2 * i + 1] = in[i] & 15;
    }
    if (count % 2) to[count - 1] = in[pairs] >> 4;
}

float read_f32(const std::byte* from) {
    float v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

/// Elements from the first of the block at staged.row(row) to column `column`.
int64_t elements_to(const StagedRect& staged, int64_t row, int64_t column) {
    return staged.phase(row) + column - staged.rect.cols.begin;
}

}  // namespace

StoredRect Codec4::needs(const StoredMatrix& m, size_t, Interval n, Interval k) const {
    if (n.empty() || k.empty()) return {};
    return {m.source.stored_rows(n), k};
}

size_t Codec4::scratch_bytes(const StoredMatrix& m, Interval n, Interval k) const {
    return static_cast<size_t>(n.size() * (row_stride(k) + runs_of(m, k).size() * 4));
}

void Codec4::scales_of(std::span<const StagedRect> staged, int64_t row, int64_t run, Interval k,
                       float* out) const {
    const Interval runs{k.begin / run, ceil_div(k.end, run)};
    const StagedRect& absmax = staged[kAbsmax];
    const std::byte* from = absmax.row(row);
    const int64_t first = elements_to(absmax, row, 0);
    if (!nested_ && run == (int64_t{1} << shift_)) {  // a run is a block: neighbours
        std::memcpy(out, from + ((first + k.begin) >> shift_) * 4,
                    static_cast<size_t>(runs.size()) * 4);
        return;
    }
    const auto column = [&](int64_t i) { return std::max(i * run, k.begin); };
    if (!nested_) {
        for (int64_t i = runs.begin; i < runs.end; ++i)
            *out++ = read_f32(from + ((first + column(i)) >> shift_) * 4);
        return;
    }
    const std::byte* outer = staged[kNestedAbsmax].row(row);
    const int64_t outer_first = elements_to(staged[kNestedAbsmax], row, 0);
    const int outer_shift = shift_ + nested_->shift;
    for (int64_t i = runs.begin; i < runs.end; ++i) {
        const int64_t c = column(i);
        const float level = nested_->map[static_cast<size_t>(from[(first + c) >> shift_])];
        const float product = level * read_f32(outer + ((outer_first + c) >> outer_shift) * 4);
        *out++ = product + nested_->offset;
    }
}

CodeTile Codec4::decode(const StoredMatrix& m, Interval n, Interval k,
                        std::span<const StagedRect> staged, std::byte* scratch) const {
    CodeTile tile;
    tile.rows = n.size(), tile.cols = k.size();
    if (n.empty() || k.empty()) return tile;
    const Interval rows = m.source.stored_rows(n), runs = runs_of(m, k);
    tile.codes = scratch, tile.row_bytes = row_stride(k);
    auto* scales = reinterpret_cast<float*>(scratch + n.size() * tile.row_bytes);
    tile.scales = scales, tile.factor_stride = runs.size(), tile.first_group = runs.begin;
    for (int64_t row = rows.begin; row < rows.end; ++row) {
        const int64_t at = elements_to(staged[kCodes], row, k.begin);
        unpack(staged[kCodes].row(row) + at / 2, at % 2 != 0, k.size(), scratch);
        scales_of(staged, row, run_columns(m), k, scales);
        scratch += tile.row_bytes, scales += runs.size();
    }
    return tile;
}

}  // namespace bitsandbytes
