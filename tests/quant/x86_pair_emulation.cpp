#include "quant/kernels/panel/generic.h"
#include "quant/kernels/panel/x86_pair_step.h"
#include "tests/quant/pair_emulation.h"

namespace conclave::quant::test {
namespace {

struct Emulation {
    static __m512 dot(__m512 acc, __m512i w, __m512i x) {
        const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
        acc = multiply_add(_mm512_and_si512(w, high), _mm512_and_si512(x, high), acc);
        return multiply_add(_mm512_slli_epi32(w, 16), _mm512_slli_epi32(x, 16), acc);
    }
    static __m512 multiply_add(__m512i w, __m512i x, __m512 acc) {
        return flush(_mm512_fmadd_ps(flush(_mm512_castsi512_ps(w)), flush(_mm512_castsi512_ps(x)),
                                     flush(acc)));
    }
    static __m512 flush(__m512 v) {  // subnormal numbers become a zero of their sign
        const __mmask16 tiny =
            _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(0x1p-126f), _CMP_LT_OQ);
        return _mm512_mask_and_ps(v, tiny, v, _mm512_set1_ps(-0.0f));
    }
};

void emulate(const GemmCall& call) {
    panel::run<panel::PairStep<Emulation>, panel::Tile<12, 12, 2, 12>>(call);
}

}  // namespace

void (*const pair_emulation_run)(const GemmCall&) = emulate;

}  // namespace conclave::quant::test
