// The flat indexer against its definition, element by element.
#include <gtest/gtest.h>

#include <set>

#include "tests/bitsandbytes/staged.h"

namespace bitsandbytes::test {
namespace {

/// Byte ranges of the blocks that any element of the rectangle is in.
std::vector<sharding::ByteRange> ranges_by_definition(const StoredPiece& p, const StoredRect& r) {
    std::set<int64_t> blocks;
    for (int64_t row = r.rows.begin; row < r.rows.end; ++row)
        for (int64_t c = r.cols.begin; c < r.cols.end; ++c)
            blocks.insert((row * p.cols + c) / p.block);
    std::vector<sharding::ByteRange> ranges;
    for (const int64_t b : blocks) {
        const auto at = static_cast<uint64_t>(b * p.element_bytes);
        if (!ranges.empty() && ranges.back().end() == at)
            ranges.back().bytes += static_cast<uint64_t>(p.element_bytes);
        else
            ranges.push_back({at, static_cast<uint64_t>(p.element_bytes)});
    }
    return ranges;
}

/// Place of a byte of the tensor in the ranges read back to back.
int64_t place_of(const std::vector<sharding::ByteRange>& ranges, int64_t byte) {
    int64_t before = 0;
    for (const sharding::ByteRange& r : ranges) {
        if (byte < static_cast<int64_t>(r.end()))
            return before + byte - static_cast<int64_t>(r.offset);
        before += static_cast<int64_t>(r.bytes);
    }
    return -1;
}

TEST(FlatIndexer, GivesTheBlocksOfTheRectangleAndNoOthers) {
    std::mt19937 rng(3);
    const auto in = [&](int64_t low, int64_t high) {
        return low + static_cast<int64_t>(rng() % static_cast<uint64_t>(high - low + 1));
    };
    for (int round = 0; round < 3000; ++round) {
        StoredPiece p;
        p.tensor = "t", p.indexer = FlatIndexer::kName;
        p.rows = in(1, 30), p.cols = in(1, round % 3 == 0 ? 9 : 300);
        const int64_t blocks[] = {1, 2, 3, 32, 64, 100, 128, 4096, 64 * 256};
        p.block = blocks[rng() % std::size(blocks)];
        p.element_bytes = static_cast<int>(in(1, 4));
        const StoredRect rect{quant::test::random_cut(p.rows, rng),
                              quant::test::random_cut(p.cols, rng)};
        const sharding::OffsetTable table = FlatIndexer().index(p, rect);
        ASSERT_EQ(table.ranges, ranges_by_definition(p, rect))
            << p.rows << " x " << p.cols << ", block " << p.block << ", rows "
            << rect.rows.to_string() << ", columns " << rect.cols.to_string();
        ASSERT_EQ(sharding::table_fault(
                      table, p, rect,
                      static_cast<uint64_t>(ceil_div(p.rows * p.cols, p.block) * p.element_bytes)),
                  "");
        for (int64_t r = 0; r < rect.rows.size(); ++r) {
            const int64_t first = (rect.rows.begin + r) * p.cols + rect.cols.begin;
            const RowPlace& place = table.rows[static_cast<size_t>(r)];
            ASSERT_EQ(place.phase, first % p.block);
            ASSERT_EQ(place.at, place_of(table.ranges, first / p.block * p.element_bytes));
        }
    }
}

TEST(FlatIndexer, WholeRowsAreOneRange) {
    StoredPiece p{PieceRole::kCodes, "t", 1, 1000, 4096, FlatIndexer::kName, 2};
    const auto table = FlatIndexer().index(p, {{10, 900}, {0, 4096}});
    ASSERT_EQ(table.ranges.size(), 1u);
    EXPECT_EQ(table.ranges[0], (sharding::ByteRange{10 * 2048, 890 * 2048}));
}

}  // namespace
}  // namespace bitsandbytes::test
