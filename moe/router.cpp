#include "moe/router.h"

#include <cmath>

namespace conclave::moe {
namespace {

/// Selection by insertion: top_k is small (8 of 128), so this is one pass over the row.
void top_k(const float* p, int64_t experts, int64_t k, int32_t* ids, float* weights) {
    int64_t have = 0;
    for (int64_t e = 0; e < experts; ++e) {
        const float v = std::isnan(p[e]) ? 0.0f : p[e];
        int64_t at = have;
        while (at > 0 && weights[at - 1] < v) --at;
        if (at >= k) continue;
        const int64_t last = have < k ? have : k - 1;
        for (int64_t i = last; i > at; --i) weights[i] = weights[i - 1], ids[i] = ids[i - 1];
        weights[at] = v;
        ids[at] = static_cast<int32_t>(e);
        if (have < k) ++have;
    }
}

}  // namespace

void route(const RouterSpec& spec, float* logits, int64_t tokens, const quant::VectorOps& ops,
           int32_t* ids, float* weights) {
    for (int64_t t = 0; t < tokens; ++t) {
        float* row = logits + t * spec.experts;
        float* w = weights + t * spec.top_k;
        ops.softmax(row, spec.experts);
        top_k(row, spec.experts, spec.top_k, ids + t * spec.top_k, w);
        if (!spec.renormalize) continue;
        float sum = 0;
        for (int64_t j = 0; j < spec.top_k; ++j) sum += w[j];
        if (sum > 0)
            for (int64_t j = 0; j < spec.top_k; ++j) w[j] /= sum;
    }
}

}  // namespace conclave::moe
