#include "sharding/embedding.h"

#include <cstring>

#include "runtime/base/error.h"

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
            throw Error(ErrorCode::kUnsupported, "embeddings are served in bf16, f16 and f32 only")
                .found(encoding.to_string());
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

    float* own =
        context.workspace.allocate<float>(static_cast<int64_t>(bytes[self] / sizeof(float)));
    float* next = own;
    for (size_t t = 0; t < ids.size(); ++t) {
        if (owners[t] != self) continue;
        const int64_t local = ids[t] - (*cut_)[self].begin;
        for (const auto& piece : rows_->pieces) {
            if (local < piece.rows.begin || local >= piece.rows.end) continue;
            const std::byte* from =
                context.bases[piece.node] + piece.offset +
                (local - piece.rows.begin) * width_ * (quant::code_bits(rows_->kernel->code) / 8);
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
                default:  // row_storage() refused scaled codes
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
