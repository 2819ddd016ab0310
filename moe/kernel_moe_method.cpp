#include "moe/kernel_moe_method.h"

#include <numeric>

#include "runtime/base/interval.h"
#include "sharding/gemm_tasks.h"
#include "sharding/kernel_linear_method.h"

namespace conclave::moe {

using sharding::GemmBlock;
using sharding::GemmJob;

namespace {

/// Whether gate and up read their input in the same form.
bool same_input(const quant::LinearWeights& w) {
    const quant::PartDescriptor &gate = w.descriptor.parts[0], &up = w.descriptor.parts[1];
    return gate.rule == up.rule && w.parts[0].kernel->x == w.parts[1].kernel->x &&
           gate.layout.groups == up.layout.groups &&
           gate.layout.column_scale == up.layout.column_scale;
}

}  // namespace

void KernelMoeMethod::create_weights(quant::FusedMoeWeights& weights,
                                     const quant::MethodContext& context) const {
    const sharding::KernelLinearMethod linear;
    for (size_t e = 0; e < weights.w13.size(); ++e) {
        linear.create_weights(weights.w13[e], context);
        linear.create_weights(weights.w2[e], context);
    }
}

void KernelMoeMethod::apply_w13(const quant::FusedMoeWeights& weights, quant::WeightBases bases,
                                quant::PreparedInput& x, const quant::DispatchView& dispatch,
                                float* intermediate, int64_t stride, const quant::VectorOps& ops,
                                Executor& executor) const {
    // Per active expert, the input rows of its slots in the form that gate and up read.
    struct Expert {
        const quant::LinearWeights* w;
        std::vector<const void*> gate_x, up_x;
    };
    std::vector<Expert> active;
    std::vector<GemmJob> jobs;
    for (size_t e = 0; e < weights.w13.size(); ++e) {
        const int64_t first = dispatch.offsets[e], rows = dispatch.offsets[e + 1] - first;
        if (rows == 0) continue;
        const quant::LinearWeights& w = weights.w13[e];
        const std::span<const int32_t> tokens =
            dispatch.token.subspan(static_cast<size_t>(first), static_cast<size_t>(rows));
        const auto form = [&](size_t part) {
            return x.form(w.descriptor.parts[part].rule, w.parts[part].kernel->x,
                          w.parts[part].layout, tokens);
        };
        Expert a{&w, form(0), {}};
        a.up_x = same_input(w) ? a.gate_x : form(1);
        bases.count(w.parts[0].bytes() + w.parts[1].bytes());
        active.push_back(std::move(a));
        jobs.push_back({&w.parts[0], active.back().gate_x.data(), rows,
                        intermediate + first * stride, stride});
    }
    const auto blocks = sharding::divide(jobs, executor);
    std::vector<int64_t> counts;
    for (const auto& b : blocks) counts.push_back(static_cast<int64_t>(b.size()));
    executor.parallel_for(counts, [&](int node, int64_t i) {
        const GemmBlock& b = blocks[node][i];
        const GemmJob& job = jobs[b.job];
        const quant::LinearWeights& w = *active[b.job].w;
        const quant::PackedMatrix &gate = w.parts[0], &up = w.parts[1];
        const int64_t columns = b.end - b.begin, tile_stride = round_up(columns, 16);
        const size_t tile_bytes = static_cast<size_t>(job.rows * tile_stride) * sizeof(float);
        std::byte* scratch =
            executor.scratch(tile_bytes + std::max(gate.kernel->scratch_bytes(gate.layout),
                                                   up.kernel->scratch_bytes(up.layout)));
        float* tile = reinterpret_cast<float*>(scratch);
        float* out = job.out + b.piece->rows.begin + b.begin;
        sharding::run_block(gate, b, job.x, job.rows, out, stride, bases, scratch + tile_bytes);
        GemmBlock same = b;
        same.piece = &up.pieces[b.piece - gate.pieces.data()];
        sharding::run_block(up, same, active[b.job].up_x.data(), job.rows, tile, tile_stride, bases,
                            scratch + tile_bytes);
        for (int64_t r = 0; r < job.rows; ++r)
            ops.silu_mul(out + r * stride, tile + r * tile_stride, columns, out + r * stride);
    });
}

void KernelMoeMethod::apply_w2(const quant::FusedMoeWeights& weights, quant::WeightBases bases,
                               quant::PreparedInput& intermediate,
                               const quant::DispatchView& dispatch, float* out, int64_t stride,
                               Executor& executor) const {
    std::vector<GemmJob> jobs;
    std::vector<std::vector<const void*>> inputs;
    std::vector<int32_t> slots;
    for (size_t e = 0; e < weights.w2.size(); ++e) {
        const int64_t first = dispatch.offsets[e], rows = dispatch.offsets[e + 1] - first;
        if (rows == 0) continue;
        const quant::LinearWeights& w = weights.w2[e];
        slots.resize(static_cast<size_t>(rows));
        std::iota(slots.begin(), slots.end(), static_cast<int32_t>(first));
        inputs.push_back(intermediate.form(w.descriptor.parts[0].rule, w.parts[0].kernel->x,
                                           w.parts[0].layout, slots));
        jobs.push_back({&w.parts[0], inputs.back().data(), rows, out + first * stride, stride});
    }
    sharding::run_gemms(jobs, bases, executor);
}

}  // namespace conclave::moe
