#include "sharding/indexed_piece.h"

#include <cstring>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "sharding/foreign.h"
#include "sharding/loader.h"

namespace conclave::sharding {
namespace {

/// Ranges further apart than this are never read as one. A read call costs what copying some 12 KiB
/// does; a cut below 4 KiB of a row leaves gaps of at most 16 times that on 16 ranks.
constexpr uint64_t kWidestGap = 64 << 10;

std::vector<ByteRange> joined(const std::vector<ByteRange>& ranges) {
    std::vector<ByteRange> reads;
    uint64_t last = 0;  // bytes of the range that the last read ends with
    for (const ByteRange& r : ranges) {
        const bool near = !reads.empty() && r.offset - reads.back().end() <= kWidestGap;
        const bool touching = !reads.empty() && r.offset == reads.back().end();
        const uint64_t below = kStripeBelow;
        if (touching || (near && (last < below || r.bytes < below)))
            reads.back().bytes = r.end() - reads.back().offset;
        else
            reads.push_back(r);
        last = r.bytes;
    }
    return reads;
}

}  // namespace

std::optional<uint64_t> piece_bytes(const quant::StoredPiece& p) {
    if (p.element_bytes < 1 || p.rows < 0 || p.cols < 0 || p.block < 1) return std::nullopt;
    if (p.cols > 0 && p.rows > INT64_MAX / p.cols) return std::nullopt;
    const int64_t elements = p.rows * p.cols;
    const int64_t blocks = elements / p.block + (elements % p.block > 0);
    if (blocks > INT64_MAX / p.element_bytes) return std::nullopt;
    return static_cast<uint64_t>(blocks * p.element_bytes);
}

std::string table_fault(const OffsetTable& table, const quant::StoredPiece& piece,
                        const quant::StoredRect& rect, uint64_t bytes) {
    uint64_t end = 0, total = 0;
    for (const ByteRange& r : table.ranges) {
        if (r.bytes == 0) return fmt::format("range [{}, +0) is empty", r.offset);
        if (r.offset > bytes || r.bytes > bytes - r.offset)
            return fmt::format("range [{}, +{}) is outside the tensor's {} bytes", r.offset,
                               r.bytes, bytes);
        if (r.offset < end)
            return fmt::format("range [{}, +{}) begins before byte {}, where the one before ends",
                               r.offset, r.bytes, end);
        end = r.end();
        total += r.bytes;
    }
    if (static_cast<int64_t>(table.rows.size()) != rect.rows.size())
        return fmt::format("{} rows are placed, the rectangle has {}", table.rows.size(),
                           rect.rows.size());
    for (size_t r = 0; r < table.rows.size(); ++r) {
        const quant::RowPlace& place = table.rows[r];
        // The row lies in one stretch: of this many blocks.
        const int64_t blocks = ceil_div(place.phase + rect.cols.size(), piece.block);
        const auto left = static_cast<int64_t>(total) - place.at;
        if (place.at < 0 || place.phase < 0 || place.phase >= piece.block || left < 0 ||
            blocks > left / piece.element_bytes)
            return fmt::format("row {} is placed at byte {}, phase {}, of {} bytes read",
                               rect.rows.begin + static_cast<int64_t>(r), place.at, place.phase,
                               total);
    }
    return "";
}

IndexedPiece index_piece(const IndexerRegistry& indexers, const quant::StoredPiece& p,
                         const quant::StoredRect& rect, uint64_t bytes) {
    IndexedPiece out;
    if (rect.rows.empty() || rect.cols.empty()) {
        out.table.rows.resize(rect.rows.empty() ? 0 : static_cast<size_t>(rect.rows.size()));
        return out;
    }
    const auto indexer = indexers.find(p.indexer);
    if (indexer == indexers.end())
        throw Error(ErrorCode::kInternal, "no shard indexer is named " + p.indexer)
            .tensor(p.tensor);
    out.table = call_foreign([&] { return "shard indexer " + p.indexer; },
                             [&] { return indexer->second->index(p, rect); });
    const std::string fault = table_fault(out.table, p, rect, bytes);
    if (!fault.empty())
        throw Error(ErrorCode::kInternal, "shard indexer " + p.indexer + " is wrong about rows " +
                                              rect.rows.to_string() + ", columns " +
                                              rect.cols.to_string())
            .tensor(p.tensor)
            .found(fault);
    for (const ByteRange& r : out.table.ranges) out.needed += r.bytes;
    out.reads = joined(out.table.ranges);
    for (const ByteRange& r : out.reads) out.requested += r.bytes;
    return out;
}

void drop_gaps(const IndexedPiece& piece, std::byte* read) {
    if (piece.needed == piece.requested) return;
    auto from = piece.reads.begin();
    const std::byte* first = read;  // of read `from`
    std::byte* to = read;
    for (const ByteRange& r : piece.table.ranges) {
        while (r.offset >= from->end()) {
            first += from->bytes;
            ++from;
        }
        std::memmove(to, first + (r.offset - from->offset), r.bytes);
        to += r.bytes;
    }
}

}  // namespace conclave::sharding
