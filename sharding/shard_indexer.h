// Where a rectangle of a stored tensor lies in its bytes. Identity slicing (row-major, whole
// elements) is built into the loader and needs no indexer; a format whose bytes do not follow the
// logical matrix registers one.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quant/codec.h"

namespace conclave::sharding {

struct ByteRange {
    uint64_t offset = 0;  ///< from the first byte of the tensor
    uint64_t bytes = 0;
    uint64_t end() const { return offset + bytes; }
    bool operator==(const ByteRange&) const = default;
};

/// The bytes of one rectangle, and where its rows lie once they are read back to back.
struct OffsetTable {
    /// What is needed, no more: ascending, none empty, none overlapping, all inside the tensor.
    /// (The loader joins short ones that are near each other into one read.)
    std::vector<ByteRange> ranges;
    /// One for each row of the rectangle; `at` counts from the first byte of the concatenation of
    /// `ranges`. Rows may share bytes. From its place on, a row lies in one stretch of it.
    std::vector<quant::RowPlace> rows;
};

class ShardIndexer {
  public:
    virtual ~ShardIndexer() = default;
    /// Any thread. The rectangle is inside the piece and not empty. A function of its arguments.
    virtual OffsetTable index(const quant::StoredPiece& piece,
                              const quant::StoredRect& rect) const = 0;
};

/// Indexers by name, as StoredPiece::indexer refers to them.
using IndexerRegistry = std::map<std::string, std::shared_ptr<const ShardIndexer>, std::less<>>;

}  // namespace conclave::sharding
