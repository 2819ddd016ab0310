#include "sharding/parallel_linear.h"

#include <cstring>

#include "sharding/collectives.h"

namespace conclave::sharding {

void ParallelLinear::apply(StepContext& context, quant::PreparedInput& x,
                           std::span<float* const> out) const {
    std::vector<int64_t> stride;
    for (const auto& p : weights_->descriptor.parts) stride.push_back(p.n);
    method_->apply(*weights_, context.bases, x, {out, stride}, context.executor);
    for (size_t p = 0; p < bias_.size(); ++p)
        if (!bias_[p].empty())
            for (int64_t r = 0; r < x.rows(); ++r)
                context.ops.add(bias_[p].data(), stride[p], out[p] + r * stride[p]);
}

void RowParallelLinear::apply_partial(StepContext& context, const float* x, int64_t rows,
                                      float* out) const {
    CONCLAVE_CHECK(!deterministic_);
    const Interval held = (*input_)[context.comm.rank()];
    const int64_t k = held.size();
    const Workspace::Scope scope(context.workspace);
    quant::PreparedInput input(x, k, rows, k, context.ops, context.executor, context.workspace);
    input.place({held, k_});
    const quant::PartDescriptor& matrix = weights_->descriptor.parts[0];
    if (scale_spans_ranks(matrix.rule, *input_))
        share_statistics(context.comm, context, input, quant::statistics_per_row(matrix.rule, k_),
                         [&](int64_t) -> const quant::PartDescriptor* { return &matrix; });
    if (k == 0) {
        std::memset(out, 0, static_cast<size_t>(rows * n_) * sizeof(float));
        return;
    }
    method_->apply(*weights_, context.bases, input,
                   {std::span<float* const>(&out, 1), std::span<const int64_t>(&n_, 1)},
                   context.executor);
}

void RowParallelLinear::apply(StepContext& context, const float* x, int64_t rows,
                              float* out) const {
    if (deterministic_) {
        const Workspace::Scope scope(context.workspace);
        float* whole = context.workspace.allocate<float>(rows * k_);
        gather_columns(context.comm, context, x, rows, *input_, k_, whole);
        const int64_t n = (*output_)[context.comm.rank()].size();
        float* local = context.workspace.allocate<float>(rows * n);
        quant::PreparedInput input(whole, k_, rows, k_, context.ops, context.executor,
                                   context.workspace);
        method_->apply(*weights_, context.bases, input,
                       {std::span<float* const>(&local, 1), std::span<const int64_t>(&n, 1)},
                       context.executor);
        gather_columns(context.comm, context, local, rows, *output_, n_, out);
    } else {
        apply_partial(context, x, rows, out);
        context.comm.all_reduce_sum(out, static_cast<size_t>(rows * n_));
    }
    if (!bias_.empty())
        for (int64_t r = 0; r < rows; ++r) context.ops.add(bias_.data(), n_, out + r * n_);
}

}  // namespace conclave::sharding
