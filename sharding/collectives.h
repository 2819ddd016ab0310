// Collectives over activations that are cut along their columns.
#pragma once
#include "sharding/shard_plan.h"
#include "sharding/step_context.h"

namespace conclave::sharding {

/// Collective over `comm`. Rank i holds columns cut[i] of a [rows, extent] matrix, stored densely
/// ([rows, cut size]); `out` [rows, extent] gets all of it on every rank. Columns that overlap are
/// taken from the lowest rank. Exact: nothing is summed.
void gather_columns(comm::Communicator& comm, StepContext& context, const float* local,
                    int64_t rows, std::span<const Interval> cut, int64_t extent, float* out);

}  // namespace conclave::sharding
