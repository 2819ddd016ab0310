#include "sharding/embedding.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "quant/dequantize.h"

namespace conclave::sharding {
namespace {

template <int bytes>
size_t row_bytes(int64_t n, const quant::MatrixLayout& layout) {
    return static_cast<size_t>(n * layout.k * bytes);
}

template <int bytes>
void keep_rows(std::byte* packed, int64_t, const quant::MatrixLayout& layout, int64_t row0,
               const quant::CodeTile& tile) {
    const int64_t k = layout.k;
    for (int64_t r = 0; r < tile.rows; ++r)
        std::memcpy(packed + (row0 + r) * k * bytes, tile.codes + r * tile.row_bytes,
                    static_cast<size_t>(k * bytes));
}

/// A row of scaled codes: scales and then zeros of its runs in f32, the codes in 4 or 8 bits each,
/// in whole words.
struct ScaledRow {
    explicit ScaledRow(const quant::MatrixLayout& layout)
        : runs(static_cast<int64_t>(layout.groups->runs.size())),
          halves(quant::code_bits(layout.encoding.code) <= 4),
          zeros_at(runs * 4),
          codes_at(layout.encoding.zero == quant::FactorType::kNone ? zeros_at : 2 * zeros_at),
          bytes(codes_at + round_up(halves ? ceil_div(layout.k, 2) : layout.k, 4)) {}
    int64_t runs;
    bool halves;
    int64_t zeros_at, codes_at, bytes;
};

size_t scaled_bytes(int64_t n, const quant::MatrixLayout& layout) {
    return static_cast<size_t>(n * ScaledRow(layout).bytes);
}

void keep_scaled(std::byte* packed, int64_t, const quant::MatrixLayout& layout, int64_t row0,
                 const quant::CodeTile& tile) {
    const ScaledRow row(layout);
    for (int64_t r = 0; r < tile.rows; ++r) {
        std::byte* to = packed + (row0 + r) * row.bytes;
        std::memset(to, 0, static_cast<size_t>(row.bytes));
        for (int64_t i = 0; i < row.runs; ++i) {
            const int64_t at = r * tile.factor_stride +
                               layout.groups->runs[static_cast<size_t>(i)].group - tile.first_group;
            std::memcpy(to + 4 * i, tile.scales + at, 4);
            if (row.codes_at > row.zeros_at)
                std::memcpy(to + row.zeros_at + 4 * i, tile.zeros + at, 4);
        }
        const std::byte* codes = tile.codes + r * tile.row_bytes;
        for (int64_t c = 0; c < layout.k && row.halves; ++c)
            to[row.codes_at + c / 2] |= codes[c] << (c % 2 * 4);
        if (!row.halves) std::memcpy(to + row.codes_at, codes, static_cast<size_t>(layout.k));
    }
}

/// Rows of scaled codes as numbers.
class ScaledRows {
  public:
    explicit ScaledRows(const quant::MatrixLayout& layout)
        : layout_(layout), row_(layout), decoder_(layout), codes_(static_cast<size_t>(layout.k)) {
        int32_t last = 0;
        for (const quant::Run& run : layout.groups->runs) last = std::max(last, run.group);
        scales_.resize(static_cast<size_t>(last) + 1);
        zeros_ = scales_;
    }
    int64_t bytes() const { return row_.bytes; }
    void decode(const std::byte* from, float* out) {
        const auto& runs = layout_.groups->runs;
        for (size_t i = 0; i < runs.size(); ++i) {
            std::memcpy(&scales_[static_cast<size_t>(runs[i].group)], from + 4 * i, 4);
            std::memcpy(&zeros_[static_cast<size_t>(runs[i].group)], from + row_.zeros_at + 4 * i,
                        4);
        }
        from += row_.codes_at;
        for (int64_t c = 0; c < layout_.k; ++c)
            codes_[static_cast<size_t>(c)] =
                row_.halves ? from[c / 2] >> (c % 2 * 4) & std::byte{15} : from[c];
        quant::CodeTile tile;
        tile.codes = codes_.data(), tile.row_bytes = tile.cols = layout_.k, tile.rows = 1;
        tile.scales = scales_.data();
        if (row_.codes_at > row_.zeros_at) tile.zeros = zeros_.data();
        tile.factor_stride = static_cast<int64_t>(scales_.size());
        decoder_.decode(tile, 0, out);
    }

  private:
    const quant::MatrixLayout& layout_;
    ScaledRow row_;
    quant::RowDecoder decoder_;
    std::vector<std::byte> codes_;
    std::vector<float> scales_, zeros_;  ///< by group
};

size_t no_scratch(const quant::MatrixLayout&) { return 0; }

template <int bytes>
constexpr quant::Kernel storage(const char* name, quant::CodeType code) {
    return {name,
            "rows",
            Isa::kGeneric,
            code,
            quant::XType::kF32,
            true,
            1,
            row_bytes<bytes>,
            keep_rows<bytes>,
            no_scratch,
            nullptr};
}

constexpr quant::Kernel kRowsF32 = storage<4>("rows_f32", quant::CodeType::kF32);
constexpr quant::Kernel kRowsF16 = storage<2>("rows_f16", quant::CodeType::kF16);
constexpr quant::Kernel kRowsBf16 = storage<2>("rows_bf16", quant::CodeType::kBF16);
constexpr quant::Kernel kRowsScaled = {
    "rows_scaled", "rows", Isa::kGeneric, quant::CodeType::kU8, quant::XType::kF32,
    true,          1,      scaled_bytes,  keep_scaled,          no_scratch,
    nullptr};

}  // namespace

const quant::Kernel& row_storage(const quant::Encoding& encoding) {
    switch (encoding.code) {
        case quant::CodeType::kF32:
            return kRowsF32;
        case quant::CodeType::kF16:
            return kRowsF16;
        case quant::CodeType::kBF16:
            return kRowsBf16;
        default:
            return kRowsScaled;
    }
}

void VocabParallelEmbedding::apply(StepContext& context, std::span<const int32_t> ids,
                                   float* out) const {
    const Workspace::Scope scope(context.workspace);
    const int ranks = context.comm.size(), self = context.comm.rank();
    const auto owner = [&](int32_t id) {
        int r = 0;
        while ((*cut_)[r].end <= id) ++r;
        return r;
    };
    std::vector<int> owners;
    std::vector<size_t> bytes(ranks, 0);
    const size_t row = static_cast<size_t>(width_) * sizeof(float);
    for (int32_t id : ids) owners.push_back(owner(id)), bytes[owners.back()] += row;

    std::optional<ScaledRows> scaled;
    if (rows_->kernel == &kRowsScaled) scaled.emplace(rows_->layout);
    const int64_t stride =
        scaled ? scaled->bytes() : width_ * (quant::code_bits(rows_->kernel->code) / 8);
    float* own =
        context.workspace.allocate<float>(static_cast<int64_t>(bytes[self] / sizeof(float)));
    float* next = own;
    for (size_t t = 0; t < ids.size(); ++t) {
        if (owners[t] != self) continue;
        const int64_t local = ids[t] - (*cut_)[self].begin;
        for (const auto& piece : rows_->pieces) {
            if (local < piece.rows.begin || local >= piece.rows.end) continue;
            const std::byte* from =
                context.bases[piece.node] + piece.offset + (local - piece.rows.begin) * stride;
            const auto* half = reinterpret_cast<const uint16_t*>(from);
            switch (rows_->kernel->code) {
                case quant::CodeType::kF32:
                    std::memcpy(next, from, row);
                    break;
                case quant::CodeType::kF16:
                    context.ops.from_f16(half, width_, next);
                    break;
                case quant::CodeType::kBF16:
                    context.ops.from_bf16(half, width_, next);
                    break;
                default:
                    scaled->decode(from, next);
                    break;
            }
        }
        next += width_;
    }
    if (ranks == 1) {
        std::memcpy(out, own, bytes[0]);
        return;
    }
    float* all = context.workspace.allocate<float>(static_cast<int64_t>(ids.size()) * width_);
    context.comm.all_gather(own, all, bytes);
    std::vector<const float*> from(ranks);
    const float* at = all;
    for (int r = 0; r < ranks; at += bytes[r++] / sizeof(float)) from[r] = at;
    for (size_t t = 0; t < ids.size(); ++t, from[owners[t - 1]] += width_)
        std::memcpy(out + static_cast<int64_t>(t) * width_, from[owners[t]], row);
}

}  // namespace conclave::sharding
