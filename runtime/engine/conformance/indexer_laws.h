// What shard indexers promise.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "runtime/engine/conformance/search.h"

namespace conclave::engine::conformance {

/// A rectangle of a piece, and one that contains it.
struct IndexedCase {
    quant::StoredPiece piece;
    uint64_t bytes = 0;  ///< of the tensor
    bool random = true;  ///< the piece is made up, and may be made smaller
    quant::StoredRect whole, part;
};

using IndexerCheck = Verdict (*)(const sharding::ShardIndexer& indexer, const IndexedCase& c);
struct IndexerLaw {
    const char* name;
    IndexerCheck check;
};
/// In the order in which they build on each other.
const std::vector<IndexerLaw>& indexer_laws();

/// `make`: cases, small ones first.
Outcome search_indexer(const IndexerLaw& law, const sharding::ShardIndexer& indexer,
                       const std::function<IndexedCase(int64_t index)>& make, const Trial& trial);

/// Cases of the pieces given, or of random ones.
std::function<IndexedCase(int64_t index)> indexed_cases(
    const std::vector<quant::StoredPiece>& pieces, const std::vector<uint64_t>& tensor_bytes,
    const Trial& trial);

std::string rect_text(const quant::StoredRect& rect);

}  // namespace conclave::engine::conformance
