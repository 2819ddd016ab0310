// The arithmetic of all_reduce.
#pragma once
#include <cstddef>
#include <span>

namespace conclave::comm {

enum class Reduction { kSum, kMax };

/// out[i] = in[0][i] op in[1][i] op ..., in this order for every i, whatever `count`. A NaN wins
/// every maximum. `out` may be one of the inputs.
void reduce_in_order(Reduction op, std::span<const float* const> in, float* out, size_t count);

}  // namespace conclave::comm
