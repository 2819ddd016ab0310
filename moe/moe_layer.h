// A mixture-of-experts layer over ranks: route, dispatch, experts, combine, exchange.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moe/gated_mlp.h"
#include "moe/router.h"
#include "sharding/weight_builder.h"

namespace conclave::moe {

/// An expert that every token goes to, its output scaled by sigmoid(gate x) (Qwen2-MoE).
struct SharedExpertSource {
    std::string prefix;  ///< prefix.{gate,up,down}_proj
    std::string gate;    ///< [1, hidden]
    int64_t width = 0;
};

class MoeLayer {
  public:
    /// Router [experts, hidden] at the first of `gates` that is there; experts as `source` names
    /// them.
    MoeLayer(sharding::WeightBuilder& builder, const RouterSpec& router,
             const std::vector<std::string>& gates, const sharding::ExpertSource& source,
             const std::optional<SharedExpertSource>& shared = {});

    /// x, out [tokens, hidden], whole and equal on all ranks. Collective.
    void apply(sharding::StepContext& context, const float* x, int64_t tokens, float* out) const;

  private:
    void experts_fast(sharding::StepContext& context, quant::PreparedInput& x,
                      std::span<const int32_t> ids, const float* weights, float* out) const;
    void experts_deterministic(sharding::StepContext& context, quant::PreparedInput& x,
                               std::span<const int32_t> ids, const float* weights,
                               float* out) const;

    /// shared_statistics_.
    int64_t statistics_to_share(int rank) const;
    /// Columns of w2's input on each rank that shares the experts of `rank`.
    std::span<const Interval> sharers(int rank) const;
    void add_shared(sharding::StepContext& context, quant::PreparedInput& x, float* out) const;

    struct Shared {
        GatedMlp mlp;
        sharding::ParallelLinear gate;
    };
    RouterSpec spec_;
    sharding::ParallelLinear router_;
    sharding::ExpertShards experts_;
    std::optional<Shared> shared_;
    sharding::RankGrid grid_;
    int64_t hidden_ = 0, width_ = 0;
    bool deterministic_ = false;
    /// Floats per slot that the ranks of an expert exchange before w2, where a dynamic scale of its
    /// input spans them; 0: none does.
    int64_t shared_statistics_ = 0;
};

}  // namespace conclave::moe
