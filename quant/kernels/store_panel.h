// How kernels with panels of 16 rows of W write their results. Internal linkage.
#pragma once
#include <cstdint>

#include "quant/kernel.h"

namespace conclave::quant {
namespace {

/// Writes those of a panel's 16 results that lie in [n0, n1), for rows [row, row + rows): result r
/// is sums[r * stride]. S is of quant/simd.
template <class S>
[[gnu::noinline]] void store_panel(const GemmCall& call, int64_t panel, int64_t row, int64_t rows,
                                   const typename S::V* sums, int64_t stride) {
    constexpr int64_t kLanes = 16;
    const int64_t begin = panel * kLanes;
    const int64_t lo = call.n0 > begin ? call.n0 : begin;
    const int64_t hi = call.n1 < begin + kLanes ? call.n1 : begin + kLanes;
    float* out = call.out + row * call.out_stride + (lo - call.n0);
    for (int64_t r = 0; r < rows; ++r, out += call.out_stride) {
        if (hi - lo == kLanes) {
            S::store(out, sums[r * stride]);
            continue;
        }
        float lanes[kLanes];
        S::store(lanes, sums[r * stride]);
        for (int64_t j = lo; j < hi; ++j) out[j - lo] = lanes[j - begin];
    }
}

/// The results of P panels from `panel` on. A copy is stored: sums whose address is known to others
/// would have to stay in memory.
template <class S, int R, int P>
[[gnu::always_inline]] inline void store_panels(const GemmCall& call, int64_t panel, int64_t row,
                                                const typename S::V (&sums)[R][P]) {
    typename S::V last[P][R];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) last[p][r] = sums[r][p];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) store_panel<S>(call, panel + p, row, R, last[p], 1);
}

}  // namespace
}  // namespace conclave::quant
