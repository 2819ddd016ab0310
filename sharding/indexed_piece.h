// What an indexer says of a rectangle, checked, and the reads that it becomes.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sharding/shard_indexer.h"

namespace conclave::sharding {

/// Bytes that a tensor must have at least to be this piece; nullopt where it would be 2^63 or more,
/// or a number of the piece is out of range.
std::optional<uint64_t> piece_bytes(const quant::StoredPiece& piece);

/// What is wrong with the table that an indexer made for a rectangle of a piece, whose tensor has
/// `bytes` bytes; empty: nothing.
std::string table_fault(const OffsetTable& table, const quant::StoredPiece& piece,
                        const quant::StoredRect& rect, uint64_t bytes);

struct IndexedPiece {
    OffsetTable table;
    std::vector<ByteRange> reads;  ///< cover the ranges; ascending, none overlapping
    uint64_t needed = 0;           ///< bytes of the ranges
    uint64_t requested = 0;        ///< bytes of the reads
};

/// Asks the piece's indexer for `rect`, of a tensor of `bytes` bytes. Ranges shorter than
/// kStripeBelow are joined with what lies near. Throws kInternal naming indexer and tensor where
/// there is no such indexer, or its table is wrong.
IndexedPiece index_piece(const IndexerRegistry& indexers, const quant::StoredPiece& piece,
                         const quant::StoredRect& rect, uint64_t bytes);

/// Moves the ranges together, in place: `read` holds the reads back to back.
void drop_gaps(const IndexedPiece& piece, std::byte* read);

}  // namespace conclave::sharding
