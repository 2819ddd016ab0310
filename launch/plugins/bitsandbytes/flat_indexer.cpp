#include <bitsandbytes/flat_indexer.h>

namespace bitsandbytes {

using conclave::ceil_div;
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
    for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r) {
        const int64_t first = r * piece.cols + rect.cols.begin;
        const Interval blocks{first / piece.block, ceil_div(first + rect.cols.size(), piece.block)};
        if (run.empty() || blocks.begin > run.end) {
            add_run();
            run = blocks;
        } else {
            run.end = blocks.end;  // rows ascend
        }
        table.rows.push_back(
            {(held + blocks.begin - run.begin) * piece.element_bytes, first % piece.block});
    }
    add_run();
    return table;
}

}  // namespace bitsandbytes
