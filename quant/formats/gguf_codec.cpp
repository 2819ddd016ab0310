#include "quant/formats/gguf_codec.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "quant/formats/tensors.h"
#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

/// The multiples of `width` that `columns` are of.
Interval wholes(Interval columns, int64_t width) {
    if (columns.empty()) return {0, 0};
    return {columns.begin / width, ceil_div(columns.end, width)};
}

/// Throws kBadContent for factors that are no finite numbers.
void check_finite(const StoredMatrix& m, const char* what, int64_t row, const float* factors,
                  int64_t count) {
    constexpr uint32_t kExponent = 0x7f800000;
    bool finite = true;
    for (int64_t i = 0; i < count; ++i)
        finite &= (std::bit_cast<uint32_t>(factors[i]) & kExponent) != kExponent;
    if (finite) return;
    throw Error(ErrorCode::kBadContent, std::string(what) + " of a block is not a finite number")
        .tensor(m.pieces[0].tensor)
        .found("row " + std::to_string(row) + " of the file");
}

class BlockCodec final : public Codec {
  public:
    BlockCodec(const BlockType& type, RowOrder order) : type_(type), order_(order) {}
    const char* name() const override { return "gguf"; }

    StoredRect needs(const StoredMatrix& m, size_t, Interval n, Interval k) const override {
        return {order_.file_rows(m.source.stored_rows(n)), wholes(k, type_.elements)};
    }

    int64_t rows_per_read(const StoredMatrix&) const override {
        return std::max<int64_t>(order_.head_dim, 1);
    }

    size_t scratch_bytes(const StoredMatrix&, Interval n, Interval k) const override {
        int64_t factors = wholes(k, type_.encoding.group).size();
        if (type_.encoding.super > 0) factors += wholes(k, type_.elements).size();
        return static_cast<size_t>(
            n.size() * (decoded_row_bytes(k.size()) + (has_zeros() ? 2 : 1) * factors * 4));
    }

    CodeTile decode(const StoredMatrix& m, Interval n, Interval k,
                    std::span<const StagedRect> staged, std::byte* scratch) const override {
        const Interval rows = m.source.stored_rows(n), groups = wholes(k, type_.encoding.group);
        CodeTile tile;
        tile.rows = n.size(), tile.cols = k.size();
        tile.row_bytes = decoded_row_bytes(k.size());
        tile.codes = scratch;
        tile.first_group = groups.begin, tile.factor_stride = groups.size();
        auto* codes = reinterpret_cast<uint8_t*>(scratch);
        auto* scales = reinterpret_cast<float*>(scratch + tile.rows * tile.row_bytes);
        float* zeros = has_zeros() ? scales + tile.rows * groups.size() : nullptr;
        tile.scales = scales, tile.zeros = zeros;
        if (k.empty()) return tile;
        if (type_.encoding.super > 0)
            decode_supers(tile, staged[0], rows, wholes(k, type_.elements),
                          scales + (zeros ? 2 : 1) * tile.rows * groups.size());
        for (int64_t r = rows.begin; r < rows.end; ++r) {
            const int64_t row = order_.file_row(r);
            decode_row(staged[0], row, k, groups, codes, scales, zeros);
            check_finite(m, "the scale", row, scales, groups.size());
            if (zeros) check_finite(m, "the minimum", row, zeros, groups.size());
            codes += tile.row_bytes, scales += groups.size();
            if (zeros) zeros += groups.size();
        }
        return tile;
    }

  private:
    /// Of the super-blocks, which are blocks.
    void decode_supers(CodeTile& tile, const StagedRect& staged, Interval rows, Interval blocks,
                       float* scales) const {
        float* zeros = has_zeros() ? scales + rows.size() * blocks.size() : nullptr;
        tile.super_scales = scales, tile.super_zeros = zeros;
        tile.super_stride = blocks.size(), tile.first_super = blocks.begin;
        for (int64_t r = rows.begin; r < rows.end; ++r) {
            const auto* block = reinterpret_cast<const uint8_t*>(staged.row(order_.file_row(r))) +
                                (blocks.begin - staged.rect.cols.begin) * type_.bytes;
            for (int64_t b = 0; b < blocks.size(); ++b, block += type_.bytes) {
                *scales++ = block_f16(block + type_.super_scale_at);
                if (zeros) *zeros++ = block_f16(block + type_.super_zero_at);
            }
        }
    }

    bool has_zeros() const { return type_.encoding.zero != FactorType::kNone; }

    void decode_row(const StagedRect& staged, int64_t row, Interval k, Interval groups,
                    uint8_t* codes, float* scales, float* zeros) const {
        const int64_t width = type_.elements, group = type_.encoding.group;
        const Interval blocks = wholes(k, width);
        const auto* from = reinterpret_cast<const uint8_t*>(staged.row(row)) +
                           (blocks.begin - staged.rect.cols.begin) * type_.bytes;
        for (int64_t b = blocks.begin; b < blocks.end; ++b, from += type_.bytes) {
            const Interval all{b * width, (b + 1) * width};
            const int64_t g = all.begin / group - groups.begin;
            if (all.begin >= k.begin && all.end <= k.end) {
                type_.decode(from, codes + (all.begin - k.begin), scales + g,
                             zeros ? zeros + g : nullptr);
                continue;
            }
            uint8_t block_codes[kMostBlockElements];
            float block_scales[kMostBlockGroups], block_zeros[kMostBlockGroups];
            type_.decode(from, block_codes, block_scales, block_zeros);
            const Interval part{std::max(all.begin, k.begin), std::min(all.end, k.end)};
            std::copy_n(block_codes + (part.begin - all.begin), part.size(),
                        codes + (part.begin - k.begin));
            const Interval some = wholes(part, group);
            const int64_t skipped = some.begin - all.begin / group;
            std::copy_n(block_scales + skipped, some.size(), scales + (some.begin - groups.begin));
            if (zeros)
                std::copy_n(block_zeros + skipped, some.size(),
                            zeros + (some.begin - groups.begin));
        }
    }

    const BlockType& type_;
    RowOrder order_;
};

class OrderedPlainCodec final : public Codec {
  public:
    explicit OrderedPlainCodec(RowOrder order) : order_(order) {}
    const char* name() const override { return "gguf plain"; }

    StoredRect needs(const StoredMatrix& m, size_t, Interval n, Interval k) const override {
        return {order_.file_rows(m.source.stored_rows(n)), k};
    }
    int64_t rows_per_read(const StoredMatrix&) const override { return order_.head_dim; }
    size_t scratch_bytes(const StoredMatrix& m, Interval n, Interval k) const override {
        return static_cast<size_t>(n.size() * k.size() * m.pieces[0].element_bytes);
    }
    CodeTile decode(const StoredMatrix& m, Interval n, Interval k,
                    std::span<const StagedRect> staged, std::byte* scratch) const override {
        const Interval rows = m.source.stored_rows(n);
        const int64_t bytes = m.pieces[0].element_bytes;
        CodeTile tile;
        tile.rows = n.size(), tile.cols = k.size();
        tile.row_bytes = k.size() * bytes;
        tile.codes = scratch;
        if (k.empty()) return tile;
        for (int64_t r = rows.begin; r < rows.end; ++r, scratch += tile.row_bytes)
            std::memcpy(
                scratch,
                staged[0].row(order_.file_row(r)) + (k.begin - staged[0].rect.cols.begin) * bytes,
                static_cast<size_t>(tile.row_bytes));
        return tile;
    }

  private:
    RowOrder order_;
};

}  // namespace

int64_t RowOrder::file_row(int64_t row) const {
    if (head_dim == 0) return row;
    const int64_t half = head_dim / 2, inside = row % head_dim;
    return row - inside + (inside < half ? 2 * inside : 2 * (inside - half) + 1);
}

Interval RowOrder::file_rows(Interval rows) const {
    if (head_dim == 0 || rows.empty()) return rows;
    Interval all{file_row(rows.begin), file_row(rows.begin) + 1};
    for (int64_t r = rows.begin; r < rows.end; ++r) {
        all.begin = std::min(all.begin, file_row(r));
        all.end = std::max(all.end, file_row(r) + 1);
    }
    return all;
}

StoredMatrix block_matrix(const MatrixSource& source, const std::string& tensor,
                          const BlockType& type, RowOrder order) {
    CONCLAVE_CHECK(source.k % type.elements == 0 && type.elements <= kMostBlockElements);
    CONCLAVE_CHECK(type.elements / type.encoding.group <= kMostBlockGroups);
    StoredMatrix m;
    m.source = source;
    m.encoding = type.encoding;
    m.codec = std::make_shared<const BlockCodec>(type, order);
    m.pieces.push_back({PieceRole::kCodes, tensor, static_cast<int>(type.bytes), source.all_rows(),
                        source.k / type.elements});
    return m;
}

std::shared_ptr<const Codec> ordered_plain_codec(RowOrder order) {
    return std::make_shared<const OrderedPlainCodec>(order);
}

}  // namespace conclave::quant
