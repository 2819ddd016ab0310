// Weights with a scale (and a zero) per row and group: 4-bit and 8-bit integers, indices into 16
// levels, and 8-bit floats.
//
// W[j][k] is made of the code q[j][k] and the scale s[j][g] and zero z[j][g] of its group g:
//     kU2 ... kU8        (q - z) * s; z is zero_point where the encoding keeps no zeros
//     the same, added    (q - zero_point) * s + z                       (Encoding::zero_added)
//     kT4                levels[q] * s
//     kE4M3, kE4M3N      value(q) * s
// s = (stored * multiplier) / divisor of the matrix' GlobalScale, an operation whose operand is 1
// left out. Under super-scales (Encoding::super) stored is an integer times the super-scale, and z,
// which is added, one times minus the super-zero: exact. Columns are taken in kernel order, run
// after run (quant/grouping.h). All sums begin at 0 and have one accumulator per output:
//
// x in f32, per run four chains c_i over the columns whose place in the run is i mod 4:
//     c_i = fma(v, x, c_i)                    v = q - z rounded to f32; levels[q]; value(q)
//     out[j] = fma((c_0 + c_1) + (c_2 + c_3), s, out[j])      runs in ascending order
//   added zeros:
//     c_i = fma(w, x, c_i)                    w = fma(q - zero_point, s, z)
//     out[j] = ((c_0 + c_1) + (c_2 + c_3)) + out[j]
// x in int8 with a scale sx and a sum of codes per block b of up to 32 columns:
//     d = sum over the block of q * qx        exact, in integers
//     u = fma(-z, sum_b, d)                   exact where z is an integer: all below 2^24
//     out[j] = fma(u, s * sx_b, out[j])       blocks in ascending order
//   added zeros: u with zero_point for z, and then
//     out[j] = fma(z, sx_b * sum_b, out[j])
//   kT4, whose levels are steps * step: q is the code's number of steps + z, z = max|steps|, and
//     s * step takes the place of s.
// x in int8 with a scale sx and a zero zx per row (kU4, kU8; z an integer), per run:
//     d = sum over the run of (q - z) * qx    exact, rounded to f32 once
//     t = sum over the run of q - z           exact, rounded to f32 once
//     u = fma(-zx, t, d)
//     out[j] = fma(u, s * sx, out[j])         runs in ascending order
// (The generic kernels round products too: no fma there.)
//
// Packed, per panel of 16 rows and without gaps, also between panels (zeros under super-scales: a
// byte each):
//     under super-scales: [super-block][16] super-scales, then super-zeros if there are zeros, f16,
//     [run][16] scales as stored, [run][16] zeros (of 4-bit codes: byte i holds those of rows i
//     below and 8 + i above; else as stored), then [chunk][16 bytes a bit] codes, a chunk being 8
//     columns of a run (padded with code 0).
// 4 bits: byte 4 * r + i of a chunk holds column i of row r below and column 4 + i above.
// 8 bits: two halves of 64 bytes; byte 4 * r + i of half h is column 4 * h + i.
// 2, 3, 5, 6 bits: planes. The lower 4 bits, if there are more, as 4 bits; then (of 2 and 6) two
// bits of each: those of byte b in the order of 8 bits are field b / 32 of byte b % 32; then (of 3
// and 5) one bit: field b / 16 of byte b % 16. Of 3 bits the plane of two is below, and comes
// first. Rows from n to the end of the last panel are zero.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/kernel.h"

namespace conclave::quant::grouped {

constexpr int64_t kRows = 16;  ///< rows of W in a panel: the model granule along N
constexpr int kMaxPanels = 2;  ///< that a kernel works on at once
/// Rows of x for which panels are read: their int8 codes stay in L2 (of K = 4096: 256 KiB), and
/// what is made of a panel's factors serves many.
constexpr int64_t kBlockRows = 64;

/// A call and what its layout comes to, so that vector code needs no inline function of others.
struct Work {
    const GemmCall& call;
    const Run* runs;
    int64_t run_count;
    FactorType scale, zero;
    float multiplier, divisor;  ///< of every scale
    bool scales_in_place;       ///< f16 or bf16, and nothing is to be done to them
    bool zero_pairs;            ///< zeros are two to a byte
    bool zero_added;
    float zero_point;  ///< where no zeros are subtracted
    int super_shift;   ///< super-block of group g: g >> super_shift; -1: no super-scales
    int64_t super_zeros_at, scales_at, zeros_at, codes_at, panel_bytes;
    int64_t x_scales_at, x_sums_at;  ///< in an int8 row
    int64_t blocks;                  ///< of such a row
    float* factors;                  ///< scratch: see Factors
    int32_t* starts;                 ///< scratch: kBlockRows for each block
    const float* values;             ///< what each code but of kU8 stands for
    /// Of kT4: values[q] = (steps[q] - max_step) * step; step is 0 where there are none.
    float step, max_step;
    uint8_t steps[16];
};

#define CONCLAVE_KERNEL(name, isa, code, x) void name##_run(const Work& work);
#include "quant/kernels/grouped/kernels.inc"
#undef CONCLAVE_KERNEL

}  // namespace conclave::quant::grouped
