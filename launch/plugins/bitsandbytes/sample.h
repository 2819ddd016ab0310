// Random matrices as the library might store them, and what they stand for.
#pragma once
#include <conclave/plugin.h>

namespace bitsandbytes {

/// By `seed`: nf4, nested nf4, fp4 in larger blocks, or int8.
conclave::quant::StoredSample sample(int64_t n, int64_t k, uint64_t seed);

}  // namespace bitsandbytes
