// Unquantized weights in panels of 16 rows.
//
// x in f32, W in f32, f16 or bf16 (converted to f32 exactly). With s_c the chain of the steps
// k = c, c + 2, c + 4 ... in ascending order,
//     s_c = fma(W[j][k], x[k], s_c),      out[j] = s_0 + s_1,
// both chains beginning at 0. (The generic kernels round the product too: no fma there.)
// Two chains suffice: at a latency of 4 cycles they take 16 bytes of bf16 per cycle, more than a
// core gets from memory, and with 12 rows they are 24 accumulators, as many as registers can hold.
//
// x and W in bf16: the same over steps of two columns (an odd k is padded with a zero column),
// each step being the instruction VDPBF16PS:
//     s = fma(W[j][2t+1], x[2t+1], s); s = fma(W[j][2t], x[2t], s)
// rounded to nearest even, subnormal inputs taken as zero, subnormal results flushed to zero.
//
// Packed: [panel][k][16] codes resp. [panel][ceil(k/2)][16][2]; rows from n to the end of the last
// panel are zero. A call reads its panels in ascending addresses, once per kBlockRows rows.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/kernel.h"

namespace conclave::quant::panel {

constexpr int64_t kRows = 16;  ///< rows of W in a panel: the model granule along N

// With many rows, kGroup panels are worked on at once: kBlockSteps steps of them are unpacked
// (16 KiB, half of the smallest L1) and multiplied with up to kBlockRows rows of x, whose
// accumulators wait in 24 KiB of scratch meanwhile. Unpacking then costs a twentieth.
constexpr int64_t kGroup = 2;
constexpr int64_t kBlockSteps = 128;
constexpr int64_t kBlockRows = 96;

#define CONCLAVE_KERNEL(name, isa, code, x) void name##_run(const GemmCall& call);
#include "quant/kernels/panel/kernels.inc"
#undef CONCLAVE_KERNEL

}  // namespace conclave::quant::panel
