// The feed-forward layer of dense models, and the shared expert of mixtures.
#pragma once
#include <string>

#include "sharding/weight_builder.h"

namespace conclave::moe {

/// down(silu(gate x) * up x), its width cut over all ranks.
class GatedMlp {
  public:
    /// prefix.{gate,up,down}_proj, or prefix.gate_up_proj.
    GatedMlp(sharding::WeightBuilder& builder, const std::string& prefix, int64_t hidden,
             int64_t width, bool bias = false);

    /// x, out [tokens, hidden], whole and equal on all ranks. Collective.
    void apply(sharding::StepContext& context, const float* x, int64_t tokens, float* out) const;
    /// Fast mode: this rank's part of the sum. Not collective; without a bias of down_proj.
    void apply_partial(sharding::StepContext& context, const float* x, int64_t tokens,
                       float* out) const;

  private:
    /// silu(gate x) * up x, [tokens, own width].
    const float* activate(sharding::StepContext& context, const float* x, int64_t tokens) const;

    int64_t hidden_;
    sharding::ParallelLinear gate_up_;
    sharding::RowParallelLinear down_;
};

}  // namespace conclave::moe
