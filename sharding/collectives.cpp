#include "sharding/collectives.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace conclave::sharding {

void gather_columns(comm::Communicator& comm, StepContext& context, const float* local,
                    int64_t rows, std::span<const Interval> cut, int64_t extent, float* out) {
    const auto width = [&](size_t r) { return static_cast<size_t>(cut[r].size()); };
    if (comm.size() == 1) {
        std::memcpy(out, local, static_cast<size_t>(rows * extent) * sizeof(float));
        return;
    }
    const Workspace::Scope scope(context.workspace);
    std::vector<size_t> bytes(cut.size());
    std::vector<const float*> block(cut.size());
    int64_t total = 0;
    for (size_t r = 0; r < cut.size(); ++r) {
        bytes[r] = static_cast<size_t>(rows) * width(r) * sizeof(float);
        total += rows * cut[r].size();
    }
    float* all = context.workspace.allocate<float>(total);
    for (size_t r = 0, at = 0; r < cut.size(); at += bytes[r++])
        block[r] = all + at / sizeof(float);
    comm.all_gather(local, all, bytes);
    const auto copy_row = [&](int64_t row) {
        for (size_t r = cut.size(); r-- > 0;)
            if (width(r))
                std::memcpy(out + row * extent + cut[r].begin,
                            block[r] + static_cast<size_t>(row) * width(r),
                            width(r) * sizeof(float));
    };
    // Below 256 KiB a copy costs less than waking threads.
    if (rows * extent < 65536)
        for (int64_t row = 0; row < rows; ++row) copy_row(row);
    else
        context.executor.parallel_for(rows, copy_row);
}

bool scale_spans_ranks(const quant::ActivationRule& rule, std::span<const Interval> cut) {
    if (!rule.dynamic()) return false;
    int64_t ranks = 0;
    bool inside = false;  // a cut inside a group
    for (const Interval& held : cut) {
        if (held.empty()) continue;
        inside = inside || rule.group == 0 || held.begin % rule.group != 0;
        ++ranks;
    }
    return ranks > 1 && inside;
}

void share_statistics(comm::Communicator& comm, StepContext& context, quant::PreparedInput& input,
                      int64_t per_row,
                      FunctionRef<const quant::PartDescriptor*(int64_t row)> matrix_of) {
    const int64_t rows = input.rows();
    float* all = context.workspace.allocate<float>(rows * per_row);
    std::fill_n(all, rows * per_row, -std::numeric_limits<float>::infinity());
    if (input.k() > 0)
        context.executor.parallel_for(rows, [&](int64_t r) {
            if (const quant::PartDescriptor* m = matrix_of(r))
                input.statistics_of(m->rule, m->layout, r, all + r * per_row);
        });
    comm.all_reduce_max(all, static_cast<size_t>(rows * per_row));
    input.set_statistics(all, per_row);
}

}  // namespace conclave::sharding
