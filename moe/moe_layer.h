// A mixture-of-experts layer over ranks: route, dispatch, experts, combine, exchange.
#pragma once
#include <string>

#include "moe/router.h"
#include "sharding/weight_builder.h"

namespace conclave::moe {

class MoeLayer {
  public:
    /// Router at `gate` [experts, hidden]; experts as `source` names them.
    MoeLayer(sharding::WeightBuilder& builder, const RouterSpec& router, const std::string& gate,
             const sharding::ExpertSource& source);

    /// x, out [tokens, hidden], whole and equal on all ranks. Collective.
    void apply(sharding::StepContext& context, const float* x, int64_t tokens, float* out) const;

  private:
    void experts_fast(sharding::StepContext& context, quant::PreparedInput& x,
                      std::span<const int32_t> ids, const float* weights, float* out) const;
    void experts_deterministic(sharding::StepContext& context, quant::PreparedInput& x,
                               std::span<const int32_t> ids, const float* weights,
                               float* out) const;

    RouterSpec spec_;
    sharding::ParallelLinear router_;
    sharding::ExpertShards experts_;
    sharding::RankGrid grid_;
    int64_t hidden_ = 0, width_ = 0;
    bool deterministic_ = false;
};

}  // namespace conclave::moe
