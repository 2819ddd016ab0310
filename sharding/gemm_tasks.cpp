#include "sharding/gemm_tasks.h"

#include <algorithm>

#include "sharding/shard_plan.h"

namespace conclave::sharding {
namespace {

/// Tasks per thread: with 4, the last thread to finish idles the others for at most a fifth of a
/// region (1 / (4 + 1)), while a task still takes several microseconds.
constexpr int64_t kTasksPerThread = 4;
/// Weight bytes below which a task costs less than handing it to another thread (about 1 us at
/// 30 GB/s).
constexpr double kLeastTaskBytes = 32768;

/// Cost of one column: its bytes for few rows, its arithmetic for many (about 8 rows hide behind
/// the memory's time for one).
double column_cost(const GemmJob& job) {
    return static_cast<double>(job.matrix->bytes()) /
           static_cast<double>(std::max<int64_t>(job.matrix->n, 1)) *
           (1 + static_cast<double>(job.rows) / 8);
}

}  // namespace

std::vector<std::vector<GemmBlock>> divide(std::span<const GemmJob> jobs,
                                           const Executor& executor) {
    std::vector<std::vector<GemmBlock>> blocks(executor.nodes());
    std::vector<double> cost(executor.nodes(), 0);
    for (const GemmJob& job : jobs)
        for (const auto& piece : job.matrix->pieces)
            cost[piece.node] += column_cost(job) * static_cast<double>(piece.rows.size());
    for (size_t j = 0; j < jobs.size(); ++j) {
        if (jobs[j].rows == 0) continue;
        for (const auto& piece : jobs[j].matrix->pieces) {
            const int threads = executor.threads(piece.node);
            const double task =
                threads == 1
                    ? cost[piece.node] + 1
                    : std::max(cost[piece.node] / (threads * kTasksPerThread), kLeastTaskBytes);
            const int64_t columns =
                std::max<int64_t>(1,
                                  static_cast<int64_t>(task / column_cost(jobs[j])) / kRowGranule) *
                kRowGranule;
            for (int64_t c = 0; c < piece.rows.size(); c += columns)
                blocks[piece.node].push_back(
                    {static_cast<int64_t>(j), &piece, c, std::min(c + columns, piece.rows.size())});
        }
    }
    return blocks;
}

void run_block(const quant::PackedMatrix& matrix, const GemmBlock& block, const void* const* x,
               int64_t rows, float* out, int64_t out_stride, quant::WeightBases bases,
               std::byte* scratch) {
    quant::GemmCall call;
    call.packed = bases[block.piece->node] + block.piece->offset;
    call.n = block.piece->rows.size();
    call.layout = &matrix.layout;
    call.x = x;
    call.rows = rows;
    call.n0 = block.begin;
    call.n1 = block.end;
    call.out = out;
    call.out_stride = out_stride;
    call.scratch = scratch;
    matrix.kernel->run(call);
}

void run_gemms(std::span<const GemmJob> jobs, quant::WeightBases bases, Executor& executor) {
    for (const GemmJob& job : jobs) bases.count(job.matrix->bytes());
    const auto blocks = divide(jobs, executor);
    std::vector<int64_t> counts;
    for (const auto& b : blocks) counts.push_back(static_cast<int64_t>(b.size()));
    executor.parallel_for(counts, [&](int node, int64_t i) {
        const GemmBlock& b = blocks[node][i];
        const GemmJob& job = jobs[b.job];
        std::byte* scratch =
            executor.scratch(job.matrix->kernel->scratch_bytes(job.matrix->layout));
        run_block(*job.matrix, b, job.x, job.rows, job.out + b.piece->rows.begin + b.begin,
                  job.out_stride, bases, scratch);
    });
}

}  // namespace conclave::sharding
