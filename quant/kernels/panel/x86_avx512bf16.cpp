#include "quant/kernels/panel/generic.h"
#include "quant/kernels/panel/x86_pair_step.h"

namespace conclave::quant::panel {
namespace {

struct Instruction {
    static __m512 dot(__m512 acc, __m512i w, __m512i x) {
        return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
    }
};
// 32 registers: 8 rows x 2 chains, which hide the product's 6 cycles, and the operands. There is
// nothing to unpack, so that packed codes serve any number of rows: on Zen 4 98 % of the peak with
// 64 rows, 85 % from copies.
using Tiles = Tile<8, 8, 2, 1 << 30>;

}  // namespace

void panel_bf16_bf16_avx512bf16_run(const GemmCall& call) {
    run<PairStep<Instruction>, Tiles>(call);
}

}  // namespace conclave::quant::panel
