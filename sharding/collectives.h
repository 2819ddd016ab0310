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

/// Whether a scale that `rule` makes from its input needs columns of more than one rank, when rank
/// i holds columns cut[i] of the rows. The same on every rank.
bool scale_spans_ranks(const quant::ActivationRule& rule, std::span<const Interval> cut);

/// Collective over `comm`, whose ranks hold the columns of the same rows: statistics (see
/// quant/quantize_row.h) of every whole row, set in `input` and living in the context's workspace.
/// Row r goes to a matrix like *matrix_of(r); null where its scale does not span ranks, and
/// the row is prepared as if there were no others. `per_row`, the same on all ranks, is the most
/// that any of them needs. A rank that holds no columns takes part with an input of k = 0.
void share_statistics(comm::Communicator& comm, StepContext& context, quant::PreparedInput& input,
                      int64_t per_row,
                      FunctionRef<const quant::PartDescriptor*(int64_t row)> matrix_of);

}  // namespace conclave::sharding
