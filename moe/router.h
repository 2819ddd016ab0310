// Which experts a token goes to, and with what weight. Pure functions of the logits, f32.
#pragma once
#include <cstdint>

#include "quant/kernels/vector_ops/op.h"

namespace conclave::moe {

struct RouterSpec {
    int64_t experts = 0, top_k = 0;
    /// Divide the chosen weights by their sum (norm_topk_prob).
    bool renormalize = false;
};

/// p = softmax(logits) over all experts; the top_k largest, largest first, the lower id first among
/// equals. `logits` [tokens, experts] is overwritten; ids and weights are [tokens, top_k].
void route(const RouterSpec& spec, float* logits, int64_t tokens, const quant::VectorOps& ops,
           int32_t* ids, float* weights);

}  // namespace conclave::moe
