#include "sharding/loader.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "sharding/foreign.h"
#include "sharding/indexed_piece.h"

namespace conclave::sharding {
namespace {

/// A few rows of one matrix piece, or one vector: what one thread reads and packs at a time.
struct Task {
    const MatrixItem* matrix = nullptr;
    const quant::PackedMatrix::Piece* piece = nullptr;
    const VectorItem* vector = nullptr;
    Interval rows;  ///< of the piece; of the vector
    size_t parameter = 0;
    uint64_t bytes = 0;
    int node = 0;
};

const StoredTensor& stored(const Checkpoint& c, const std::string& name) {
    const StoredTensor* t = c.find(name);
    CONCLAVE_CHECK(t);
    return *t;
}

/// Bytes of each stored row that are read for `rect`, and whether that is more than its cut.
struct RowRead {
    int64_t bytes = 0;
    bool stripe = false;
};
RowRead row_read(const quant::StoredPiece& p, const quant::StoredRect& rect) {
    const int64_t cut = rect.cols.size() * p.element_bytes, whole = p.cols * p.element_bytes;
    if (cut == whole) return {whole, false};
    return cut < kStripeBelow ? RowRead{whole, true} : RowRead{cut, false};
}

/// What of piece `i` rows `rows` of an item need. A codec may be a plugin's: it is not believed.
quant::StoredRect needs(const MatrixItem& m, size_t i, Interval rows) {
    const quant::StoredPiece& p = m.stored.pieces[i];
    const quant::StoredRect rect =
        call_foreign([&] { return std::string("codec ") + m.stored.codec->name(); },
                     [&] { return m.stored.codec->needs(m.stored, i, rows, m.cols); });
    const auto inside = [](Interval part, int64_t extent) {
        return part.begin >= 0 && part.begin <= part.end && part.end <= extent;
    };
    if (!inside(rect.rows, p.rows) || !inside(rect.cols, p.cols))
        throw Error(ErrorCode::kInternal,
                    std::string("codec ") + m.stored.codec->name() + " asks for more than there is")
            .tensor(p.tensor)
            .expected(fmt::format("within {} x {}", p.rows, p.cols))
            .found(rect.rows.to_string() + " x " + rect.cols.to_string());
    return rect;
}

/// Bytes to read of an item's `rows`; `stripe` grows by those that are only cut away.
uint64_t needed_bytes(const Checkpoint& checkpoint, const IndexerRegistry& indexers,
                      const MatrixItem& m, Interval rows, uint64_t* stripe) {
    uint64_t total = 0;
    for (size_t i = 0; i < m.stored.pieces.size(); ++i) {
        const quant::StoredPiece& p = m.stored.pieces[i];
        const auto rect = needs(m, i, rows);
        if (!p.indexer.empty()) {
            const IndexedPiece piece =
                index_piece(indexers, p, rect, stored(checkpoint, p.tensor).bytes);
            total += piece.requested;
            if (stripe) *stripe += piece.requested - piece.needed;
            continue;
        }
        const RowRead read = row_read(p, rect);
        total += static_cast<uint64_t>(rect.rows.size() * read.bytes);
        if (read.stripe && stripe)
            *stripe += static_cast<uint64_t>(rect.rows.size() *
                                             (read.bytes - rect.cols.size() * p.element_bytes));
    }
    return total;
}

/// A scale or zero that is no number would spread over every token: refused where it is read.
/// `row`: of the matrix, the tile's first.
void check_factors(const Checkpoint& checkpoint, const MatrixItem& m, int64_t row,
                   const quant::CodeTile& tile) {
    if (!m.packed->layout.groups) return;
    for (const bool scale : {true, false}) {
        const float* factors = scale ? tile.scales : tile.zeros;
        for (int64_t r = 0; factors && r < tile.rows; ++r)
            for (const quant::Run& run : m.packed->layout.groups->runs) {
                const float kept = factors[r * tile.factor_stride + run.group - tile.first_group];
                const float v = scale ? m.packed->layout.global.of(kept) : kept;
                if (std::isfinite(v)) continue;
                const auto role = scale ? quant::PieceRole::kScales : quant::PieceRole::kZeros;
                const auto piece =
                    std::find_if(m.stored.pieces.begin(), m.stored.pieces.end(),
                                 [&](const quant::StoredPiece& p) { return p.role == role; });
                CONCLAVE_CHECK(piece != m.stored.pieces.end());
                const StoredTensor& t = stored(checkpoint, piece->tensor);
                throw Error(ErrorCode::kBadContent, scale ? "a scale is not a finite number"
                                                          : "a zero point is not a finite number")
                    .file(checkpoint.files()[t.file].path)
                    .tensor(piece->tensor)
                    .found(fmt::format("{} for row {}, group {}", v, row + r, run.group));
            }
    }
}

class Loader {
  public:
    Loader(const Checkpoint& checkpoint, const IndexerRegistry& indexers, const LoadItems& items,
           WeightSink& sink, Executor& executor)
        : checkpoint_(checkpoint),
          indexers_(indexers),
          sink_(sink),
          executor_(executor),
          imagined_(items.imagined) {
        for (const MatrixItem& m : items.matrices) add(m);
        for (const VectorItem& v : items.vectors) add(v);
    }

    const std::vector<Task>& tasks() const { return tasks_; }

    void run(std::span<const Task> tasks) {
        std::vector<std::vector<const Task*>> by_node(executor_.nodes());
        for (const Task& t : tasks) by_node[t.node].push_back(&t);
        std::vector<int64_t> counts;
        for (const auto& v : by_node) counts.push_back(static_cast<int64_t>(v.size()));
        executor_.parallel_for(counts, [&](int node, int64_t i) { run(*by_node[node][i]); });
    }

    CoverageLedger& ledger() { return ledger_; }
    uint64_t offset_tables() const { return offset_tables_; }

  private:
    void add(const MatrixItem& m) {
        const size_t parameter = ledger_.declare(m.stored.pieces[0].tensor, m.rows, m.cols.size());
        for (const auto& piece : m.packed->pieces) {
            if (piece.rows.empty()) continue;
            const int64_t base = m.rows.begin + piece.rows.begin;
            const auto bytes = [&](Interval rows) {
                return needed_bytes(checkpoint_, indexers_, m, {base + rows.begin, base + rows.end},
                                    nullptr);
            };
            const int64_t n = piece.rows.size(), block = m.packed->kernel->row_block;
            // Offset tables take time: what a few rows need tells enough there.
            const bool indexed =
                std::any_of(m.stored.pieces.begin(), m.stored.pieces.end(),
                            [](const quant::StoredPiece& p) { return !p.indexer.empty(); });
            const int64_t some = indexed ? std::min<int64_t>(n, 64) : n;
            const int64_t row = std::max<int64_t>(1, static_cast<int64_t>(bytes({0, some})) / some);
            const int64_t step = round_up(std::max({block, kStagingBytes / row / block * block,
                                                    m.stored.codec->rows_per_read(m.stored)}),
                                          block);
            for (int64_t r = 0; r < n; r += step) {
                Task t;
                t.matrix = &m, t.piece = &piece, t.parameter = parameter, t.node = piece.node;
                t.rows = {r, std::min(r + step, n)};
                t.bytes = bytes(t.rows);
                tasks_.push_back(t);
            }
        }
    }

    void add(const VectorItem& v) {
        if (v.elements.empty()) return;
        Task t;
        t.vector = &v;
        t.rows = v.elements;
        t.parameter = ledger_.declare(v.tensor, v.elements, 1);
        t.bytes = static_cast<uint64_t>(v.elements.size()) *
                  (stored_type_bits(stored(checkpoint_, v.tensor).type) / 8);
        tasks_.push_back(t);
    }

    void run(const Task& t) {
        if (t.vector)
            load_vector(t);
        else
            load_matrix(t);
    }

    void load_vector(const Task& t) {
        const StoredTensor& s = stored(checkpoint_, t.vector->tensor);
        const int64_t width = stored_type_bits(s.type) / 8, n = t.rows.size();
        const size_t staged = static_cast<size_t>(round_up(static_cast<int64_t>(t.bytes), 64));
        std::byte* staging = executor_.scratch(staged + static_cast<size_t>(n) * sizeof(float));
        float* values = reinterpret_cast<float*>(staging + staged);
        checkpoint_.read(
            s.file, s.offset + static_cast<uint64_t>((t.vector->offset + t.rows.begin) * width),
            {staging, static_cast<size_t>(t.bytes)});
        for (int64_t i = 0; i < n; ++i) {
            uint16_t half = 0;
            if (s.type == StoredType::kF32)
                std::memcpy(&values[i], staging + i * 4, 4);
            else
                std::memcpy(&half, staging + i * 2, 2);
            if (s.type == StoredType::kBF16) values[i] = bf16_to_f32(half);
            if (s.type == StoredType::kF16) values[i] = f16_to_f32(half);
        }
        sink_.put(*t.vector, {values, static_cast<size_t>(n)});
        ledger_.mark(t.parameter, t.rows);
    }

    void load_matrix(const Task& t) {
        const MatrixItem& m = *t.matrix;
        const quant::Codec& codec = *m.stored.codec;
        const int64_t base = m.rows.begin + t.piece->rows.begin;
        const Interval rows{base + t.rows.begin, base + t.rows.end};
        const size_t pieces = m.stored.pieces.size();
        // Decoded a few rows at a time, so that codes are still in L2 when they are packed.
        const int64_t step =
            round_up(std::max<int64_t>(1, kStagingBytes / std::max<int64_t>(1, m.cols.size()) / 2),
                     m.packed->kernel->row_block);
        const size_t decode = codec.scratch_bytes(
            m.stored, {rows.begin, std::min(rows.begin + step, rows.end)}, m.cols);
        std::vector<quant::StagedRect> staged(pieces);
        std::vector<size_t> at(pieces + 1, 0);
        std::vector<IndexedPiece> indexed(pieces);
        for (size_t i = 0; i < pieces; ++i)
            at[i + 1] = at[i] + staging_bytes(m, i, rows, indexed[i]);
        std::byte* staging = executor_.scratch(at[pieces] + decode);
        for (size_t i = 0; i < pieces; ++i)
            staged[i] = read(m, i, rows, indexed[i], staging + at[i]);
        for (int64_t r = 0; r < rows.size(); r += step) {
            const Interval part{r, std::min(r + step, rows.size())};
            const Interval now{rows.begin + part.begin, rows.begin + part.end};
            const quant::CodeTile tile = call_foreign(
                [&] { return std::string("codec ") + codec.name(); },
                [&] { return codec.decode(m.stored, now, m.cols, staged, staging + at[pieces]); });
            check_tile(tile, m.stored, m.packed->layout.groups.get(), now, m.cols);
            check_factors(checkpoint_, m, rows.begin + part.begin, tile);
            sink_.put(m, *t.piece, {t.rows.begin + part.begin, t.rows.begin + part.end}, tile);
        }
        ledger_.mark(t.parameter, rows);
    }

    /// Room for what piece `i` needs, 64-byte multiples. Asks the indexer, if there is one.
    size_t staging_bytes(const MatrixItem& m, size_t i, Interval rows, IndexedPiece& indexed) {
        const quant::StoredPiece& p = m.stored.pieces[i];
        const auto rect = needs(m, i, rows);
        uint64_t bytes = 0;
        if (p.indexer.empty()) {
            bytes = static_cast<uint64_t>(rect.rows.size() * row_read(p, rect).bytes);
        } else {
            CONCLAVE_CHECK(!imagined_);
            indexed = index_piece(indexers_, p, rect, stored(checkpoint_, p.tensor).bytes);
            ++offset_tables_;
            bytes = indexed.requested;
        }
        return (bytes + 63) / 64 * 64;
    }

    quant::StagedRect read(const MatrixItem& m, size_t i, Interval rows,
                           const IndexedPiece& indexed, std::byte* out) const {
        const quant::StoredPiece& p = m.stored.pieces[i];
        const auto rect = needs(m, i, rows);
        if (imagined_) {
            m.stored.codec->generate(m.stored, i, rect, out);
            return {rect, out, rect.cols.size() * p.element_bytes};
        }
        const StoredTensor& s = stored(checkpoint_, p.tensor);
        if (!p.indexer.empty()) {
            std::byte* next = out;
            for (const ByteRange& r : indexed.reads) {
                checkpoint_.read(s.file, s.offset + r.offset, {next, r.bytes});
                next += r.bytes;
            }
            drop_gaps(indexed, out);
            return {rect, out, 0, indexed.table.rows};
        }
        const int64_t whole = p.cols * p.element_bytes, left = rect.cols.begin * p.element_bytes;
        const RowRead row = row_read(p, rect);
        const uint64_t first = s.offset + static_cast<uint64_t>(rect.rows.begin * whole);
        if (row.bytes == whole) {
            checkpoint_.read(s.file, first, {out, static_cast<size_t>(rect.rows.size() * whole)});
            return {rect, out + left, whole};
        }
        for (int64_t r = 0; r < rect.rows.size(); ++r)
            checkpoint_.read(s.file, first + static_cast<uint64_t>(r * whole + left),
                             {out + r * row.bytes, static_cast<size_t>(row.bytes)});
        return {rect, out, row.bytes};
    }

    const Checkpoint& checkpoint_;
    const IndexerRegistry& indexers_;
    WeightSink& sink_;
    Executor& executor_;
    const bool imagined_;
    std::vector<Task> tasks_;
    CoverageLedger ledger_;
    std::atomic<uint64_t> offset_tables_{0};
};

/// Rounds that loading is cut into; after each, ranks agree and rank 0 sees their progress. About
/// 256 MiB a round keeps the cost of meeting below 1 % of a round's reading.
int64_t rounds_for(uint64_t largest) {
    return std::clamp<int64_t>(static_cast<int64_t>(largest >> 28), 10, 400);
}

}  // namespace

void PackingSink::put(const MatrixItem& item, const quant::PackedMatrix::Piece& piece,
                      Interval rows, const quant::CodeTile& tile) {
    item.packed->kernel->pack(bases_[piece.node] + piece.offset, piece.rows.size(),
                              item.packed->layout, rows.begin, tile);
}

void PackingSink::put(const VectorItem& item, std::span<const float> values) {
    std::copy(values.begin(), values.end(), item.out);
}

LoadStats predict_load(const Checkpoint& checkpoint, const IndexerRegistry& indexers,
                       const LoadItems& items) {
    LoadStats stats;
    for (const MatrixItem& m : items.matrices)
        stats.needed_bytes += needed_bytes(checkpoint, indexers, m, m.rows, &stats.stripe_bytes);
    for (const VectorItem& v : items.vectors)
        stats.needed_bytes += static_cast<uint64_t>(v.elements.size()) *
                              (stored_type_bits(stored(checkpoint, v.tensor).type) / 8);
    return stats;
}

LoadStats load_weights(const Checkpoint& checkpoint, const IndexerRegistry& indexers,
                       const LoadItems& items, WeightSink& sink, Executor& executor,
                       comm::Communicator& comm, const LoadProgressFn& progress) {
    comm.set_phase("load");
    LoadStats stats = predict_load(checkpoint, indexers, items);
    const uint64_t before = checkpoint.counters().bytes;
    Loader loader(checkpoint, indexers, items, sink, executor);

    const std::vector<size_t> each(comm.size(), sizeof(uint64_t));
    std::vector<uint64_t> all(comm.size());
    const auto sum_of = [&](uint64_t mine) {
        comm.all_gather(&mine, all.data(), each);
        uint64_t sum = 0;
        for (uint64_t v : all) sum += v;
        return sum;
    };
    const uint64_t total = sum_of(stats.needed_bytes);
    const int64_t rounds = rounds_for(*std::max_element(all.begin(), all.end()));

    const std::vector<Task>& tasks = loader.tasks();
    uint64_t done = 0;
    size_t next = 0;
    for (int64_t round = 0; round < rounds; ++round) {
        comm::together(comm, [&] {
            comm.poll_abort();
            const uint64_t until = stats.needed_bytes * static_cast<uint64_t>(round + 1) /
                                   static_cast<uint64_t>(rounds);
            size_t last = next;
            while (last < tasks.size() && (round + 1 == rounds || done < until))
                done += tasks[last++].bytes;
            loader.run(std::span(tasks).subspan(next, last - next));
            next = last;
        });
        const uint64_t done_by_all = sum_of(done);
        if (comm.rank() == 0 && progress) progress(done_by_all, total);
    }
    comm::together(comm, [&] { stats.elements = loader.ledger().verify(comm.rank()); });
    stats.requested_bytes = checkpoint.counters().bytes - before;
    stats.offset_tables = loader.offset_tables();
    return stats;
}

}  // namespace conclave::sharding
