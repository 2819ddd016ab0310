// Integer weights with a scale (and a zero) per row and group: 4-bit and 8-bit codes.
//
// W[j][k] = (q[j][k] - z[j][g]) * s[j][g] for the columns k of group g; z is the encoding's
// zero_point where it keeps no zeros. Columns are taken in kernel order, run after run
// (quant/grouping.h); both orders of summation begin at 0 and have one accumulator per output:
//
// x in int8 with a scale sx and a sum of codes per block b of up to 32 columns:
//     d = sum over the block of q * qx        exact, in integers
//     u = fma(-z, sum_b, d)                   exact where z is an integer: all below 2^24
//     out[j] = fma(u, s * sx_b, out[j])       blocks in ascending order
// x in f32, per run four chains c_i over the columns whose place in the run is i mod 4:
//     c_i = fma(q - z, x, c_i)                q - z rounded to f32
//     out[j] = fma((c_0 + c_1) + (c_2 + c_3), s, out[j])      runs in ascending order
// (The generic kernels round products too: no fma there.)
//
// Packed, per panel of 16 rows and without gaps, also between panels:
//     [run][16] scales as stored, [run][16] zeros (of 4-bit codes: byte i holds those of rows i
//     below and 8 + i above; else as stored), then [chunk][64 or 128 bytes] codes, a chunk being 8
//     columns of a run (padded with code 0).
// 4 bits: byte 4 * r + i of a chunk holds column i of row r below and column 4 + i above.
// 8 bits: two halves of 64 bytes; byte 4 * r + i of half h is column 4 * h + i.
// Rows from n to the end of the last panel are zero.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/kernel.h"

namespace conclave::quant::grouped {

constexpr int64_t kRows = 16;  ///< rows of W in a panel: the model granule along N

/// A call and what its layout comes to, so that vector code needs no inline function of others.
struct Work {
    const GemmCall& call;
    const Run* runs;
    int64_t run_count;
    FactorType scale, zero;
    bool zero_pairs;                  ///< zeros are two to a byte
    float zero_point;                 ///< where zero is kNone
    int64_t scale_bytes, zero_bytes;  ///< of one run of a panel
    int64_t zeros_at, codes_at, panel_bytes;
    int64_t x_scales_at, x_sums_at;  ///< in an int8 row
};

#define CONCLAVE_KERNEL(name, isa, code, x) void name##_run(const Work& work);
#include "quant/kernels/grouped/kernels.inc"
#undef CONCLAVE_KERNEL

}  // namespace conclave::quant::grouped
