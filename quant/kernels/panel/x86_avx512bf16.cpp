#include "quant/kernels/panel/generic.h"
#include "quant/kernels/panel/x86_pair_step.h"

namespace conclave::quant::panel {
namespace {

struct Instruction {
    static __m512 dot(__m512 acc, __m512i w, __m512i x) {
        return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
    }
};
using Tiles = Tile<12, 12, 2, 12>;  // as in x86_avx512.cpp

}  // namespace

void panel_bf16_bf16_avx512bf16_run(const GemmCall& call) {
    run<PairStep<Instruction>, Tiles>(call);
}

}  // namespace conclave::quant::panel
