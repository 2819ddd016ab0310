// What everything that plugs in must hold to, checked one by one with random cases, small ones
// first. Used for a quick trial when a plugin is loaded, and at length by `conclave conform`.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "quant/kernel.h"
#include "sharding/shard_indexer.h"

namespace conclave::engine::conformance {

/// A law that does not hold, and the smallest case of those tried in which it does not.
struct Broken {
    std::string law;   ///< "indexer.inside"
    std::string what;  ///< for people: the case, expected and found
};

/// `cases` rectangles of the examples, and, where there are none, of pieces of random extents with
/// one element a block.
std::optional<Broken> check_indexer(const sharding::ShardIndexer& indexer,
                                    const std::vector<quant::StoredPiece>& examples, uint64_t seed,
                                    int64_t cases);

/// `cases` products of random shapes against the definition. The CPU must have kernel.isa.
std::optional<Broken> check_kernel(const quant::Kernel& kernel, uint64_t seed, int64_t cases);

}  // namespace conclave::engine::conformance
