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
};

/// The bytes of one rectangle and how they lie once read back to back.
struct OffsetTable {
    std::vector<ByteRange> ranges;  ///< in reading order; all inside the tensor
    int64_t row_bytes = 0;          ///< from one row to the next in the concatenation
    int64_t first = 0;              ///< byte of the concatenation at which row 0 begins
    int64_t phase = 0;              ///< handed to the codec
};

class ShardIndexer {
  public:
    virtual ~ShardIndexer() = default;
    /// Any thread. The rectangle is inside the piece.
    virtual OffsetTable index(const quant::StoredPiece& piece,
                              const quant::StoredRect& rect) const = 0;
};

/// Indexers by name, as StoredPiece::indexer refers to them.
using IndexerRegistry = std::map<std::string, std::shared_ptr<const ShardIndexer>>;

}  // namespace conclave::sharding
