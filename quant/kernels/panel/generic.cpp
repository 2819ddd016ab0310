#include "quant/kernels/panel/generic.h"

#include "quant/kernels/panel/steps.h"
#include "quant/simd/generic.h"

namespace conclave::quant::panel {
namespace {
using Tiles = Tile<1, 2, 1, 4>;  // 16 registers of 4 floats, as SSE2 has
}  // namespace

void panel_bf16_generic_run(const GemmCall& call) { run<BF16Step<Generic>, Tiles>(call); }
void panel_f16_generic_run(const GemmCall& call) { run<F16Step<Generic>, Tiles>(call); }
void panel_f32_generic_run(const GemmCall& call) { run<F32Step<Generic>, Tiles>(call); }

}  // namespace conclave::quant::panel
