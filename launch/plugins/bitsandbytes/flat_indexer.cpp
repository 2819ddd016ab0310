#include <bitsandbytes/flat_indexer.h>

namespace bitsandbytes {

using conclave::Interval;

conclave::sharding::OffsetTable FlatIndexer::index(const conclave::quant::StoredPiece& piece,
                                                   const conclave::quant::StoredRect& rect) const {
    conclave::sharding::OffsetTable table;
    table.rows.reserve(static_cast<size_t>(rect.rows.size()));
    Interval run;      // of blocks, the last range
    int64_t held = 0;  // blocks of the ranges before it
    const auto add_run = [&] {
        if (run.empty()) return;
        const auto bytes = static_cast<uint64_t>(piece.element_bytes);
        table.ranges.push_back(
            {static_cast<uint64_t>(run.begin) * bytes, static_cast<uint64_t>(run.size()) * bytes});
        held += run.size();
    };
    // The first element's block and place in it advance from row to row without divisions.
    const int64_t first = rect.rows.begin * piece.cols + rect.cols.begin;
    int64_t block = first / piece.block, phase = first % piece.block;
    const int64_t row_blocks = piece.cols / piece.block, row_rest = piece.cols % piece.block;
    const int64_t blocks = rect.cols.size() / piece.block, rest = rect.cols.size() % piece.block;
    for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r) {
        const int64_t tail = phase + rest;  // elements behind the whole blocks' worth
        const int64_t end = block + blocks + (tail > 0) + (tail > piece.block);
        if (run.empty() || block > run.end) {
            add_run();
            run.begin = block;
        }
        run.end = end;  // rows ascend
        table.rows.push_back({(held + block - run.begin) * piece.element_bytes, phase});
        block += row_blocks, phase += row_rest;
        if (phase >= piece.block) ++block, phase -= piece.block;
    }
    add_run();
    return table;
}

}  // namespace bitsandbytes
