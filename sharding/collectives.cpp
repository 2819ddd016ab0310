#include "sharding/collectives.h"

#include <cstring>

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

}  // namespace conclave::sharding
