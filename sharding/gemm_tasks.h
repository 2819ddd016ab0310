// Matrix products of several packed matrices as one parallel task set: matrices x column blocks.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "quant/method.h"

namespace conclave::sharding {

/// out[r * out_stride + j] = x[r] . W[j] for all rows and columns j of the local matrix.
struct GemmJob {
    const quant::PackedMatrix* matrix = nullptr;
    const void* const* x = nullptr;
    int64_t rows = 0;
    float* out = nullptr;
    int64_t out_stride = 0;
};

/// Columns [begin, end) of a piece of job `job`: one task.
struct GemmBlock {
    int64_t job = 0;
    const quant::PackedMatrix::Piece* piece = nullptr;
    int64_t begin = 0, end = 0;  ///< within the piece
};

/// Divides jobs into blocks per NUMA node: enough for stealing to even them out, never less than a
/// granule of 16 columns, so that no two threads write one cache line of a dense output row.
std::vector<std::vector<GemmBlock>> divide(std::span<const GemmJob> jobs, const Executor& executor);

/// Runs one block with the calling thread's scratch `scratch` (kernel->scratch_bytes(layout)),
/// writing column `begin` of row 0 to `out`.
void run_block(const quant::PackedMatrix& matrix, const GemmBlock& block, const void* const* x,
               int64_t rows, float* out, int64_t out_stride, quant::WeightBases bases,
               std::byte* scratch);

void run_gemms(std::span<const GemmJob> jobs, quant::WeightBases bases, Executor& executor);

}  // namespace conclave::sharding
