// Linear layers over ranks. All of them are made by WeightBuilder (sharding/weight_builder.h).
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "quant/method.h"
#include "sharding/shard_plan.h"
#include "sharding/step_context.h"

namespace conclave::sharding {

/// A linear whose output rows are cut (column-parallel in the literature's y = xA): each rank has
/// all of x and makes its own columns of each part's output. One part: ColumnParallelLinear; gate
/// and up: MergedColumnParallelLinear; q, k and v: QkvParallelLinear; whole on every rank:
/// ReplicatedLinear.
class ParallelLinear {
  public:
    int64_t parts() const { return static_cast<int64_t>(weights_->descriptor.parts.size()); }
    /// Columns of part p that this rank makes.
    int64_t local_n(int64_t p) const { return weights_->descriptor.parts[p].n; }

    /// out[p]: [x.rows(), local_n(p)], dense.
    void apply(StepContext& context, quant::PreparedInput& x, std::span<float* const> out) const;

  private:
    friend class WeightBuilder;
    std::unique_ptr<quant::LinearWeights> weights_;
    std::vector<std::vector<float>> bias_;  ///< per part; empty: none
    std::shared_ptr<const quant::LinearMethod> method_;
};

/// A linear whose input is the cut output of others (row-parallel). Fast mode cuts K and sums the
/// ranks' partial results; deterministic mode gathers the input, cuts N and gathers the output.
class RowParallelLinear {
  public:
    /// `x` [rows, own share of K], dense; `out` [rows, n] whole on every rank. Collective.
    void apply(StepContext& context, const float* x, int64_t rows, float* out) const;
    /// Fast mode: this rank's part of the sum, without bias, for callers that sum several things
    /// in one reduction. Collective only where a dynamic activation scale spans ranks.
    void apply_partial(StepContext& context, const float* x, int64_t rows, float* out) const;

  private:
    friend class WeightBuilder;
    std::unique_ptr<quant::LinearWeights> weights_;
    std::vector<float> bias_;  ///< of the whole output; added once, after the sum
    std::shared_ptr<const quant::LinearMethod> method_;
    Cut input_, output_;  ///< of x; of out (deterministic mode)
    int64_t n_ = 0, k_ = 0;
    bool deterministic_ = false;
};

}  // namespace conclave::sharding
