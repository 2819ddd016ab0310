// The generic LinearMethod: every part served by the kernel that the registry chooses for its
// descriptor.
#pragma once
#include "quant/method.h"

namespace conclave::sharding {

class KernelLinearMethod final : public quant::LinearMethod {
  public:
    const char* name() const override { return "kernel"; }
    void create_weights(quant::LinearWeights& weights,
                        const quant::MethodContext& context) const override;
    void apply(const quant::LinearWeights& weights, quant::WeightBases bases,
               quant::PreparedInput& x, const quant::LinearOutput& out,
               Executor& executor) const override;
};

/// Reserves memory for a matrix of n rows as `kernel` packs it, rows divided over the nodes.
quant::PackedMatrix reserve_matrix(const quant::Kernel& kernel, int64_t n,
                                   const quant::MatrixLayout& layout,
                                   quant::WeightReservation& memory);

}  // namespace conclave::sharding
