#include "moe/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace conclave::moe {
namespace {

TEST(Router, EqualsTheDefinition) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (int round = 0; round < 500; ++round) {
        const int64_t experts = 1 + random() % 130, tokens = 1 + random() % 4;
        const RouterSpec spec{experts, static_cast<int64_t>(1 + random() % experts),
                              random() % 2 == 0};
        std::vector<float> logits(tokens * experts);
        for (float& v : logits) v = 3 * normal(random);
        if (round % 5 == 0)  // ties
            for (float& v : logits) v = std::round(v);
        std::vector<float> scratch = logits, weights(tokens * spec.top_k, NAN);
        std::vector<int32_t> ids(tokens * spec.top_k, -7);
        route(spec, scratch.data(), tokens, quant::vector_ops(detect_cpu()), ids.data(),
              weights.data());
        for (int64_t t = 0; t < tokens; ++t) {
            const float* row = logits.data() + t * experts;
            std::vector<int32_t> order(experts);
            std::iota(order.begin(), order.end(), 0);
            std::stable_sort(order.begin(), order.end(),
                             [&](int32_t a, int32_t b) { return row[a] > row[b]; });
            double all = 0, chosen = 0;
            for (int64_t e = 0; e < experts; ++e) all += std::exp(static_cast<double>(row[e]));
            for (int64_t j = 0; j < spec.top_k; ++j)
                chosen += std::exp(static_cast<double>(row[order[j]]));
            for (int64_t j = 0; j < spec.top_k; ++j) {
                EXPECT_EQ(ids[t * spec.top_k + j], order[j]);
                const double w = std::exp(static_cast<double>(row[order[j]])) /
                                 (spec.renormalize ? chosen : all);
                EXPECT_NEAR(weights[t * spec.top_k + j] / w, 1, 1e-5);
            }
        }
    }
}

TEST(Router, NaNNeverLeavesTheExperts) {
    std::vector<float> logits(8, NAN), weights(2);
    std::vector<int32_t> ids(2, -1);
    route({8, 2, true}, logits.data(), 1, quant::vector_ops(detect_cpu()), ids.data(),
          weights.data());
    EXPECT_EQ(ids, (std::vector<int32_t>{0, 1}));
}

}  // namespace
}  // namespace conclave::moe
