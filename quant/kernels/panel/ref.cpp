// bf16 x bf16 as op.h defines it, one number at a time.
#include <bit>
#include <cmath>
#include <cstring>

#include "quant/kernels/panel/op.h"
#include "runtime/base/half.h"

namespace conclave::quant::panel {
namespace {

float flush(float v) { return std::fabs(v) < 0x1p-126f ? std::copysign(0.0f, v) : v; }

float multiply_add(uint16_t w, uint16_t x, float sum) {
    return flush(std::fma(flush(bf16_to_f32(w)), flush(bf16_to_f32(x)), flush(sum)));
}

uint16_t bf16_at(const std::byte* p) {
    uint16_t v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

}  // namespace

void panel_bf16_bf16_ref_run(const GemmCall& call) {
    const int64_t steps = (call.layout->k + 1) / 2;
    for (int64_t r = 0; r < call.rows; ++r) {
        const auto* x = static_cast<const std::byte*>(call.x[r]);
        for (int64_t j = call.n0; j < call.n1; ++j) {
            const std::byte* w = call.packed + (j / kRows * steps * kRows + j % kRows) * 4;
            float sum[2] = {0, 0};
            for (int64_t t = 0; t < steps; ++t) {
                const std::byte* wt = w + t * kRows * 4;
                float& s = sum[t % 2];
                s = multiply_add(bf16_at(wt + 2), bf16_at(x + 4 * t + 2), s);
                s = multiply_add(bf16_at(wt), bf16_at(x + 4 * t), s);
            }
            call.out[r * call.out_stride + (j - call.n0)] = sum[0] + sum[1];
        }
    }
}

}  // namespace conclave::quant::panel
