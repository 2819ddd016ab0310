#include "moe/gated_mlp.h"

namespace conclave::moe {

using sharding::StepContext;

GatedMlp::GatedMlp(sharding::WeightBuilder& b, const std::string& prefix, int64_t hidden,
                   int64_t width, bool bias)
    : hidden_(hidden),
      gate_up_(b.merged_column_parallel(prefix, {"gate_proj", "up_proj"}, "gate_up_proj", width,
                                        hidden, bias)),
      down_(b.row_parallel(prefix + ".down_proj", hidden, width,
                           b.plan().over_ranks(width, sharding::kColumnGranule), bias)) {}

const float* GatedMlp::activate(StepContext& context, const float* x, int64_t tokens) const {
    const int64_t width = gate_up_.local_n(0);
    float* gate = context.workspace.allocate<float>(tokens * width);
    if (width == 0) return gate;
    float* up = context.workspace.allocate<float>(tokens * width);
    quant::PreparedInput input(x, hidden_, tokens, hidden_, context.ops, context.executor,
                               context.workspace);
    float* const parts[] = {gate, up};
    gate_up_.apply(context, input, parts);
    context.executor.parallel_for(tokens, [&](int64_t t) {
        context.ops.silu_mul(gate + t * width, up + t * width, width, gate + t * width);
    });
    return gate;
}

void GatedMlp::apply(StepContext& context, const float* x, int64_t tokens, float* out) const {
    const Workspace::Scope scope(context.workspace);
    down_.apply(context, activate(context, x, tokens), tokens, out);
}

void GatedMlp::apply_partial(StepContext& context, const float* x, int64_t tokens,
                             float* out) const {
    const Workspace::Scope scope(context.workspace);
    down_.apply_partial(context, activate(context, x, tokens), tokens, out);
}

}  // namespace conclave::moe
