// Which tokens are scored, and what the scores come to.
#include "launch/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "runtime/base/error.h"

namespace conclave::launch {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(Perplexity, WindowsOfAText) {
    const Windows plain{128, 24, 0};
    EXPECT_EQ(plain.tokens_needed(), 128 * 24 + 1);
    EXPECT_EQ(plain.tokens_scored(), 3072);
    EXPECT_EQ(plain.begin(3), 384);
    const Windows overlapping{10, 3, 4}, apart{10, 3, 25};
    EXPECT_EQ(overlapping.tokens_needed(), 8 + 10 + 1);
    EXPECT_EQ(apart.tokens_needed(), 50 + 10 + 1);
    for (const Windows& w : {plain, overlapping, apart})
        for (int64_t tokens = 0; tokens < 200; ++tokens) {
            Windows fitting = w;
            fitting.count = w.that_fit(tokens);
            if (fitting.count > 0) {
                EXPECT_LE(fitting.tokens_needed(), tokens);
            }
            ++fitting.count;
            EXPECT_GT(fitting.tokens_needed(), tokens);
        }
}

TEST(Perplexity, NegativeLogLikelihoodIsThatOfSoftmax) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal(0, 4);
    for (int round = 0; round < 50; ++round) {
        std::vector<float> logits(1 + random() % 300);
        for (float& l : logits) l = normal(random);
        long double sum = 0, p = 0;
        for (const float l : logits) sum += std::exp(static_cast<long double>(l));
        for (size_t i = 0; i < logits.size(); ++i) {
            const double nll = negative_log_likelihood(logits, static_cast<int32_t>(i));
            EXPECT_NEAR(nll, static_cast<double>(std::log(sum) - logits[i]), 1e-12);
            p += std::exp(-static_cast<long double>(nll));
        }
        EXPECT_NEAR(static_cast<double>(p), 1, 1e-12);
    }
    const std::vector<float> huge{1000, 1000, -3e38f};  // exp of 1000 is no double
    EXPECT_NEAR(negative_log_likelihood(huge, 1), std::log(2.0), 1e-12);
}

TEST(Perplexity, WhatIsNoDistributionHasNoLikelihood) {
    const auto nll = [](std::vector<float> logits) { return negative_log_likelihood(logits, 1); };
    EXPECT_TRUE(std::isnan(nll({1, 2, std::nanf("")})));
    EXPECT_TRUE(std::isnan(nll({std::nanf(""), 2, 3})));
    EXPECT_TRUE(std::isnan(nll({kInf, 2})));
    EXPECT_TRUE(std::isnan(nll({-kInf, -kInf})));
    EXPECT_EQ(nll({0, -kInf}), std::numeric_limits<double>::infinity())
        << "impossible, but said so";
    EXPECT_EQ(nll({-kInf, 5}), 0);
    EXPECT_THROW(negative_log_likelihood(std::vector<float>{1, 2}, 2), Error);
    EXPECT_THROW(negative_log_likelihood(std::vector<float>{1, 2}, -1), Error);
}

TEST(Perplexity, FiguresByHand) {
    // A model that gives every one of 50 tokens the same odds.
    const PerplexityFigures flat = perplexity_of(std::vector<double>(77, std::log(50.0)));
    EXPECT_NEAR(flat.perplexity, 50, 1e-11);
    EXPECT_NEAR(flat.standard_error, 0, 1e-9);
    const PerplexityFigures f = perplexity_of(std::vector<double>{1, 2, 3, 6});
    EXPECT_DOUBLE_EQ(f.mean_nll, 3);
    EXPECT_DOUBLE_EQ(f.perplexity, std::exp(3.0));
    // Squares 4 + 1 + 0 + 9 over 3, over 4.
    EXPECT_DOUBLE_EQ(f.standard_error, std::exp(3.0) * std::sqrt(14.0 / 12));
    const PerplexityFigures one = perplexity_of(std::vector<double>{2});
    EXPECT_DOUBLE_EQ(one.perplexity, std::exp(2.0));
    EXPECT_TRUE(std::isnan(one.standard_error));
}

}  // namespace
}  // namespace conclave::launch
