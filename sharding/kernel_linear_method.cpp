#include "sharding/kernel_linear_method.h"

#include <cmath>

#include <spdlog/fmt/fmt.h>

#include "sharding/gemm_tasks.h"
#include "sharding/shard_plan.h"

namespace conclave::sharding {

quant::PackedMatrix reserve_matrix(const quant::Kernel& kernel, int64_t n,
                                   const quant::MatrixLayout& layout,
                                   quant::WeightReservation& memory) {
    quant::PackedMatrix m;
    m.kernel = &kernel;
    m.n = n;
    m.layout = layout;
    const int64_t block = std::max(kernel.row_block, kRowGranule), blocks = ceil_div(n, block);
    double share = 0;
    int64_t begin = 0;
    for (int node = 0; node < memory.nodes(); ++node) {
        share += memory.node_share(node);
        const int64_t end =
            node + 1 == memory.nodes()
                ? n
                : std::min(n,
                           static_cast<int64_t>(std::llround(static_cast<double>(blocks) * share)) *
                               block);
        if (end > begin) {
            const size_t bytes = layout.k > 0 ? kernel.packed_bytes(end - begin, layout) : 0;
            m.pieces.push_back({node, {begin, end}, memory.reserve(node, bytes)});
        }
        begin = std::max(begin, end);
    }
    return m;
}

void KernelLinearMethod::create_weights(quant::LinearWeights& weights,
                                        const quant::MethodContext& context) const {
    for (const quant::PartDescriptor& part : weights.descriptor.parts) {
        quant::KernelChoice choice = context.kernels.select(weights.descriptor, part, context.cpu);
        if (!choice.kernel) {
            std::string why;
            for (const auto& r : choice.refused)
                for (const std::string& reason : r.reasons)
                    why += fmt::format("; {}: {}", r.kernel->name, reason);
            throw Error(ErrorCode::kUnsupported, "no kernel can serve " + context.layer + "." +
                                                     part.name + " (" +
                                                     part.layout.encoding.to_string() + ")" + why);
        }
        weights.parts.push_back(
            reserve_matrix(*choice.kernel, part.n, part.layout, context.memory));
        if (context.choices) context.choices->push_back(std::move(choice));
    }
}

void KernelLinearMethod::apply(const quant::LinearWeights& weights, quant::WeightBases bases,
                               quant::PreparedInput& x, const quant::LinearOutput& out,
                               Executor& executor) const {
    std::vector<GemmJob> jobs;
    for (size_t p = 0; p < weights.parts.size(); ++p) {
        const quant::PackedMatrix& m = weights.parts[p];
        if (m.n == 0) continue;
        jobs.push_back({&m, x.form(weights.descriptor.parts[p].rule, m.kernel->x, m.layout),
                        x.rows(), out.out[p], out.stride[p]});
    }
    run_gemms(jobs, bases, executor);
}

}  // namespace conclave::sharding
