#include "runtime/engine/conformance/indexer_laws.h"

#include <algorithm>
#include <map>
#include <thread>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "runtime/engine/conformance/random.h"
#include "sharding/indexed_piece.h"

namespace conclave::engine::conformance {
namespace {

using quant::StoredPiece;
using quant::StoredRect;
using sharding::ByteRange;
using sharding::OffsetTable;
using sharding::ShardIndexer;

uint64_t total_bytes(const OffsetTable& table) {
    uint64_t total = 0;
    for (const ByteRange& r : table.ranges) total += r.bytes;
    return total;
}

std::string range_text(const ByteRange& r) { return fmt::format("[{}, +{})", r.offset, r.bytes); }

Verdict inside(const ShardIndexer& indexer, const IndexedCase& c) {
    const OffsetTable table = indexer.index(c.piece, c.part);
    for (const ByteRange& r : table.ranges)
        if (r.offset > c.bytes || r.bytes > c.bytes - r.offset)
            return fmt::format("expected ranges inside the tensor's {} bytes, found {}", c.bytes,
                               range_text(r));
    return std::nullopt;
}

Verdict order(const ShardIndexer& indexer, const IndexedCase& c) {
    const OffsetTable table = indexer.index(c.piece, c.part);
    for (size_t i = 0; i < table.ranges.size(); ++i) {
        const ByteRange& r = table.ranges[i];
        if (r.bytes == 0)
            return fmt::format("range {} of the table, {}, is empty", i, range_text(r));
        if (i == 0) continue;
        const ByteRange& before = table.ranges[i - 1];
        if (r.offset < before.offset)
            return fmt::format("expected ascending ranges, found {} after {}", range_text(r),
                               range_text(before));
        if (r.offset < before.end())
            return fmt::format("expected ranges that do not overlap, found {} and {}",
                               range_text(before), range_text(r));
    }
    return std::nullopt;
}

/// Bytes of the blocks that hold the part's columns of a row.
uint64_t span_bytes(const StoredPiece& p, int64_t phase, int64_t cols) {
    return static_cast<uint64_t>(ceil_div(phase + cols, p.block) * p.element_bytes);
}

Verdict rows(const ShardIndexer& indexer, const IndexedCase& c) {
    const OffsetTable table = indexer.index(c.piece, c.part);
    const uint64_t total = total_bytes(table);
    if (static_cast<int64_t>(table.rows.size()) != c.part.rows.size())
        return fmt::format("expected a place for each of {} rows, found {} places",
                           c.part.rows.size(), table.rows.size());
    for (size_t r = 0; r < table.rows.size(); ++r) {
        const quant::RowPlace& place = table.rows[r];
        const int64_t row = c.part.rows.begin + static_cast<int64_t>(r);
        if (place.phase < 0 || place.phase >= c.piece.block)
            return fmt::format("row {}: expected a phase below the block of {}, found {}", row,
                               c.piece.block, place.phase);
        const uint64_t span = span_bytes(c.piece, place.phase, c.part.cols.size());
        if (place.at < 0 || static_cast<uint64_t>(place.at) > total ||
            span > total - static_cast<uint64_t>(place.at))
            return fmt::format(
                "row {}: its {} columns from phase {} on take {} bytes from byte {} of what is "
                "read, found {} bytes in all ranges together",
                row, c.part.cols.size(), place.phase, span, place.at, total);
    }
    return std::nullopt;
}

bool same(const OffsetTable& a, const OffsetTable& b) {
    return a.ranges == b.ranges &&
           std::equal(a.rows.begin(), a.rows.end(), b.rows.begin(), b.rows.end(),
                      [](const quant::RowPlace& x, const quant::RowPlace& y) {
                          return x.at == y.at && x.phase == y.phase;
                      });
}

Verdict pure(const ShardIndexer& indexer, const IndexedCase& c) {
    const OffsetTable first = indexer.index(c.piece, c.part);
    indexer.index(c.piece, c.whole);
    if (!same(first, indexer.index(c.piece, c.part)))
        return "the same question was answered differently the second time";
    OffsetTable tables[2];
    std::exception_ptr thrown[2];
    const auto ask = [&](int i) {
        try {
            tables[i] = indexer.index(c.piece, c.part);
        } catch (...) {
            thrown[i] = std::current_exception();
        }
    };
    std::thread other(ask, 1);
    ask(0);
    other.join();
    for (int i = 0; i < 2; ++i) {
        if (thrown[i]) std::rethrow_exception(thrown[i]);
        if (!same(first, tables[i]))
            return "two threads that asked the same at once got different answers";
    }
    return std::nullopt;
}

/// Byte `at` of what a table reads, as a byte of the tensor.
class Origin {
  public:
    explicit Origin(const OffsetTable& table) : ranges_(table.ranges) {
        uint64_t begin = 0;
        for (const ByteRange& r : ranges_) begins_.push_back(begin), begin += r.bytes;
    }
    uint64_t of(uint64_t at) const {
        const auto after = std::upper_bound(begins_.begin(), begins_.end(), at);
        const auto i = static_cast<size_t>(after - begins_.begin()) - 1;
        return ranges_[i].offset + (at - begins_[i]);
    }

  private:
    const std::vector<ByteRange>& ranges_;
    std::vector<uint64_t> begins_;
};

/// The first byte that no row of the table needs.
std::optional<uint64_t> unneeded(const IndexedCase& c, const OffsetTable& table) {
    std::vector<std::pair<uint64_t, uint64_t>> spans;
    for (const quant::RowPlace& place : table.rows) {
        const auto at = static_cast<uint64_t>(place.at);
        spans.emplace_back(at, at + span_bytes(c.piece, place.phase, c.part.cols.size()));
    }
    std::sort(spans.begin(), spans.end());
    uint64_t end = 0;
    for (const auto& [from, to] : spans) {
        if (from > end) return end;
        end = std::max(end, to);
    }
    return end < total_bytes(table) ? std::optional(end) : std::nullopt;
}

struct Place {
    uint64_t byte;
    int64_t phase;
    auto operator<=>(const Place&) const = default;
};

/// Where an element is in the tensor, by the table of a rectangle that holds it.
Place place_of(const StoredPiece& p, const StoredRect& rect, const OffsetTable& table,
               const Origin& origin, int64_t row, int64_t col) {
    const quant::RowPlace& place = table.rows[static_cast<size_t>(row - rect.rows.begin)];
    const int64_t element = place.phase + col - rect.cols.begin;
    return {origin.of(static_cast<uint64_t>(place.at + element / p.block * p.element_bytes)),
            element % p.block};
}

Verdict coverage(const ShardIndexer& indexer, const IndexedCase& c) {
    const OffsetTable part = indexer.index(c.piece, c.part), all = indexer.index(c.piece, c.whole);
    const Origin of_part(part), of_all(all);
    if (const auto extra = unneeded(c, part))
        return fmt::format("byte {} of the tensor is listed, but no row of the rectangle has it",
                           of_part.of(*extra));
    std::map<Place, int64_t> taken;
    const StoredRect& r = c.part;
    for (int64_t row = r.rows.begin; row < r.rows.end; ++row) {
        const Place first = place_of(c.piece, r, part, of_part, row, r.cols.begin);
        const auto [other, fresh] = taken.emplace(first, row);
        if (!fresh)
            return fmt::format("rows {} and {} are placed on the same element, byte {} phase {}",
                               other->second, row, first.byte, first.phase);
        // Every block of the row, of long rows some.
        const int64_t step = std::max<int64_t>(1, r.cols.size() / 64);
        for (int64_t col = r.cols.begin; col < r.cols.end; col += step) {
            const Place here = place_of(c.piece, r, part, of_part, row, col),
                        there = place_of(c.piece, c.whole, all, of_all, row, col);
            if (here != there)
                return fmt::format(
                    "element ({}, {}) is at byte {} phase {} of the tensor by this table, at byte "
                    "{} phase {} by the table of {}",
                    row, col, here.byte, here.phase, there.byte, there.phase, rect_text(c.whole));
        }
    }
    return std::nullopt;
}

std::vector<IndexedCase> simpler(const IndexedCase& c) {
    std::vector<IndexedCase> out;
    const auto with = [&](Interval StoredRect::*side) {
        for (Interval i : simpler_intervals(c.part.*side)) {
            out.push_back(c);
            out.back().part.*side = i;
        }
    };
    with(&StoredRect::rows);
    with(&StoredRect::cols);
    if (c.random) {
        const auto shrink = [&](int64_t StoredPiece::*extent, Interval StoredRect::*side) {
            for (int64_t size : smaller_than(c.piece.*extent, (c.part.*side).end)) {
                IndexedCase one = c;
                one.piece.*extent = size;
                one.whole.*side = {std::min((c.whole.*side).begin, size), size};
                one.bytes = sharding::piece_bytes(one.piece).value_or(0);
                out.push_back(one);
            }
        };
        shrink(&StoredPiece::rows, &StoredRect::rows);
        shrink(&StoredPiece::cols, &StoredRect::cols);
    }
    return out;
}

}  // namespace

std::string rect_text(const StoredRect& rect) {
    return "rows " + rect.rows.to_string() + " columns " + rect.cols.to_string();
}

const std::vector<IndexerLaw>& indexer_laws() {
    static const std::vector<IndexerLaw> laws = {{"indexer.inside", inside},
                                                 {"indexer.order", order},
                                                 {"indexer.rows", rows},
                                                 {"indexer.pure", pure},
                                                 {"indexer.coverage", coverage}};
    return laws;
}

Outcome search_indexer(const IndexerLaw& law, const ShardIndexer& indexer,
                       const std::function<IndexedCase(int64_t)>& make, const Trial& trial) {
    Search<IndexedCase> s;
    s.law = law.name;
    s.make = make;
    s.check = [&](const IndexedCase& c) { return law.check(indexer, c); };
    s.text = [](const IndexedCase& c) {
        return fmt::format("piece {} of {} x {} elements, {} bytes for {}: {}", c.piece.tensor,
                           c.piece.rows, c.piece.cols, c.piece.element_bytes, c.piece.block,
                           rect_text(c.part));
    };
    s.simpler = simpler;
    return search(s, trial);
}

std::function<IndexedCase(int64_t)> indexed_cases(const std::vector<StoredPiece>& pieces,
                                                  const std::vector<uint64_t>& tensor_bytes,
                                                  const Trial& trial) {
    return [&pieces, &tensor_bytes, seed = trial.seed, cases = trial.cases](int64_t index) {
        Random random(seed ^ static_cast<uint64_t>(index) * 0x5851f42d4c957f2du);
        IndexedCase c;
        if (pieces.empty()) {
            const int64_t most = 2 + 60 * index / std::max<int64_t>(cases, 1);
            c.piece.tensor = "random";
            c.piece.element_bytes = 1 << random.in(0, 2);
            c.piece.rows = random.in(1, most), c.piece.cols = random.in(1, most);
        } else {
            c.random = false;
            c.piece = pieces[static_cast<size_t>(index) % pieces.size()];
        }
        c.bytes = sharding::piece_bytes(c.piece).value_or(0);
        if (!tensor_bytes.empty())
            c.bytes = tensor_bytes[static_cast<size_t>(index) % pieces.size()];
        if (c.piece.rows < 1 || c.piece.cols < 1) throw Skip{};
        c.whole = {{0, c.piece.rows}, {0, c.piece.cols}};
        c.part = {random_part(c.piece.rows, random), random_part(c.piece.cols, random)};
        return c;
    };
}

}  // namespace conclave::engine::conformance
