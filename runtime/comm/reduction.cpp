#include "runtime/comm/reduction.h"

#include <algorithm>
#include <cstring>

namespace conclave::comm {
namespace {

template <class Op>
void reduce_blocks(Op op, std::span<const float* const> in, float* out, size_t count) {
    constexpr size_t kBlock = 1024;  // 4 KiB: the sums stay in L1 while the inputs stream by
    float sums[kBlock];
    for (size_t at = 0; at < count; at += kBlock) {
        const size_t n = std::min(kBlock, count - at);
        std::memcpy(sums, in[0] + at, n * sizeof(float));
        for (const float* source : in.subspan(1))
            for (size_t i = 0; i < n; ++i) sums[i] = op(sums[i], source[at + i]);
        std::memcpy(out + at, sums, n * sizeof(float));
    }
}

}  // namespace

void reduce_in_order(Reduction op, std::span<const float* const> in, float* out, size_t count) {
    if (op == Reduction::kSum)
        reduce_blocks([](float a, float b) { return a + b; }, in, out, count);
    else
        reduce_blocks([](float a, float b) { return a > b || a != a ? a : b; }, in, out, count);
}

}  // namespace conclave::comm
