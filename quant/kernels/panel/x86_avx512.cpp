#include "quant/simd/x86_avx512.h"

#include "quant/kernels/panel/generic.h"
#include "quant/kernels/panel/steps.h"

namespace conclave::quant::panel {
namespace {
// 32 registers: 12 rows x 2 chains, resp. 12 rows x 2 panels, and the operands.
using Tiles = Tile<12, 12, 2, 12>;
}  // namespace

void panel_bf16_avx512_run(const GemmCall& call) { run<BF16Step<Avx512>, Tiles>(call); }
void panel_f16_avx512_run(const GemmCall& call) { run<F16Step<Avx512>, Tiles>(call); }
void panel_f32_avx512_run(const GemmCall& call) { run<F32Step<Avx512>, Tiles>(call); }

}  // namespace conclave::quant::panel
