#include "launch/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace conclave::launch {
namespace {

std::vector<float> random_logits(size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.5f, 3.0f);
    std::vector<float> values(count);
    for (float& v : values) v = normal(random);
    return values;
}

std::vector<long double> softmax(const float* row, size_t n) {
    std::vector<long double> p(n);
    long double sum = 0;
    for (size_t i = 0; i < n; ++i) sum += p[i] = std::exp(static_cast<long double>(row[i]));
    for (auto& v : p) v /= sum;
    return p;
}

TEST(CompareLogits, EqualLogitsDifferNowhere) {
    const auto logits = random_logits(5 * 17, 1);
    const LogitFigures f = compare_logits(logits, logits, 17);
    EXPECT_EQ(f.max_rel, 0);
    EXPECT_EQ(f.rms_rel, 0);
    EXPECT_NEAR(f.kl_max, 0, 1e-15);
    EXPECT_EQ(f.top1, 1);
    EXPECT_TRUE(within(f, 0));
}

TEST(CompareLogits, AgreesWithThePlainDefinitions) {
    constexpr size_t kRows = 7, kVocab = 31, kCount = kRows * kVocab;
    const auto reference = random_logits(kCount, 2);
    auto ours = reference;
    const auto noise = random_logits(kCount, 3);
    for (size_t i = 0; i < kCount; ++i) ours[i] += 0.3f * noise[i];

    long double mean = 0, variance = 0, squares = 0, largest = 0;
    for (const float v : reference) mean += static_cast<long double>(v) / kCount;
    for (size_t i = 0; i < kCount; ++i) {
        const long double d = static_cast<long double>(ours[i]) - reference[i];
        variance += (reference[i] - mean) * (reference[i] - mean) / kCount;
        squares += d * d / kCount;
        largest = std::max(largest, std::abs(d));
    }
    long double kl_mean = 0, kl_max = 0;
    int agree = 0;
    for (size_t r = 0; r < kRows; ++r) {
        const auto p = softmax(&reference[r * kVocab], kVocab);
        const auto q = softmax(&ours[r * kVocab], kVocab);
        long double kl = 0;
        for (size_t i = 0; i < kVocab; ++i) kl += p[i] * std::log(p[i] / q[i]);
        kl_mean += kl / kRows;
        kl_max = std::max(kl_max, kl);
        agree += std::max_element(p.begin(), p.end()) - p.begin() ==
                 std::max_element(q.begin(), q.end()) - q.begin();
    }
    ASSERT_GT(agree, 0);
    ASSERT_LT(agree, static_cast<int>(kRows)) << "the noise changes no choice: a weak test";

    const LogitFigures f = compare_logits(reference, ours, kVocab);
    EXPECT_NEAR(f.max_rel, largest / std::sqrt(variance), 1e-12);
    EXPECT_NEAR(f.rms_rel, std::sqrt(squares / variance), 1e-12);
    EXPECT_NEAR(f.kl_mean, kl_mean, 1e-12);
    EXPECT_NEAR(f.kl_max, kl_max, 1e-12);
    EXPECT_DOUBLE_EQ(f.top1, static_cast<double>(agree) / kRows);
    EXPECT_TRUE(within(f, f.max_rel));
    EXPECT_FALSE(within(f, f.max_rel * 0.999));
}

TEST(CompareLogits, LargeLogitsDoNotOverflow) {
    const std::vector<float> reference = {1000, 0, -1000, 900}, ours = {1001, 0, -1000, 900};
    const LogitFigures f = compare_logits(reference, ours, 4);
    EXPECT_TRUE(std::isfinite(f.kl_max));
    EXPECT_GT(f.max_rel, 0);
}

TEST(CompareLogits, ALogitThatIsNotFiniteFailsAtAnyTolerance) {
    const auto reference = random_logits(6, 4);
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
        for (size_t at = 0; at < reference.size(); ++at) {
            auto ours = reference;
            ours[at] = bad;
            EXPECT_FALSE(within(compare_logits(reference, ours, 3), 1e300)) << at;
        }
}

TEST(CompareLogits, AConstantReferenceAllowsNoDifference) {
    const std::vector<float> reference = {2, 2, 2, 2};
    EXPECT_TRUE(within(compare_logits(reference, reference, 2), 0));
    EXPECT_FALSE(within(compare_logits(reference, std::vector<float>{2, 2, 2, 3}, 2), 1e300));
}

TEST(CompareGreedy, EqualTokensPass) {
    const std::vector<int32_t> ids = {4, 5, 6};
    const GreedyFigures g = compare_greedy(ids, ids, std::vector<float>{1, 1e-4f, 1});
    EXPECT_TRUE(g.pass);
    EXPECT_FALSE(g.first_diff || g.margin);
}

TEST(CompareGreedy, ADifferencePassesOnlyFromTheFirstUnsafeMarginOn) {
    const std::vector<int32_t> ids = {4, 5, 6, 7, 8};
    const std::vector<float> margins = {1, 0.5f, 0.009f, 2, 3};
    for (size_t at = 0; at < ids.size(); ++at) {
        auto ours = ids;
        ours[at] = 99;
        const GreedyFigures g = compare_greedy(ids, ours, margins);
        EXPECT_EQ(g.pass, at >= 2) << at;
        EXPECT_EQ(g.first_diff, static_cast<int64_t>(at));
        EXPECT_FLOAT_EQ(static_cast<float>(*g.margin), margins[at]);
    }
}

TEST(CompareGreedy, MissingTokensDiffer) {
    const std::vector<int32_t> ids = {4, 5, 6};
    EXPECT_EQ(compare_greedy(ids, std::vector<int32_t>{4, 5}, {}).first_diff, 2);
    EXPECT_FALSE(compare_greedy(ids, {}, {}).pass);
}

TEST(Sha256, IsOfTheLittleEndianFloats) {
    EXPECT_EQ(sha256({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256(std::vector<float>{1.0f, -2.5f}),
              "48943f7a0ea247f8e3c9386d0c5822fe181d323a9289980426638cc4e72a43e1");
}

}  // namespace
}  // namespace conclave::launch
