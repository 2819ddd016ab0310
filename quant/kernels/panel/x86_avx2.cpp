#include "quant/simd/x86_avx2.h"

#include "quant/kernels/panel/generic.h"
#include "quant/kernels/panel/steps.h"

namespace conclave::quant::panel {
namespace {
// 16 registers: 3 rows x 2 chains, resp. 6 rows x 1 panel, of two registers each.
using Tiles = Tile<3, 6, 1, 6>;
}  // namespace

void panel_bf16_avx2_run(const GemmCall& call) { run<BF16Step<Avx2>, Tiles>(call); }
void panel_f16_avx2_run(const GemmCall& call) { run<F16Step<Avx2>, Tiles>(call); }
void panel_f32_avx2_run(const GemmCall& call) { run<F32Step<Avx2>, Tiles>(call); }

}  // namespace conclave::quant::panel
