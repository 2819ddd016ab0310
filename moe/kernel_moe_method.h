// The generic FusedMoeMethod: w13 and w2 of all active experts as task sets over experts x column
// blocks, each part served by the kernel that the registry chose. Never expert after expert.
#pragma once
#include "quant/method.h"

namespace conclave::moe {

class KernelMoeMethod final : public quant::FusedMoeMethod {
  public:
    const char* name() const override { return "kernel"; }
    void create_weights(quant::FusedMoeWeights& weights,
                        const quant::MethodContext& context) const override;
    void apply_w13(const quant::FusedMoeWeights& weights, quant::WeightBases bases,
                   quant::PreparedInput& x, const quant::DispatchView& dispatch,
                   float* intermediate, int64_t stride, const quant::VectorOps& ops,
                   Executor& executor) const override;
    void apply_w2(const quant::FusedMoeWeights& weights, quant::WeightBases bases,
                  quant::PreparedInput& intermediate, const quant::DispatchView& dispatch,
                  float* out, int64_t stride, Executor& executor) const override;
};

}  // namespace conclave::moe
