#include "runtime/engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <string>

#include "runtime/base/error.h"

namespace conclave::engine {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using Logits = std::vector<float>;
using Candidates = std::vector<Candidate>;

/// Normal logits, rounded so that ties are common, with a few -inf and NaN.
Logits random_logits(std::mt19937& random, size_t size, bool odd = true) {
    std::normal_distribution<float> normal(0, 2);
    Logits logits(size);
    for (float& l : logits) {
        l = std::round(normal(random) * 4) / 4;
        if (odd && random() % 40 == 0) l = -kInf;
        if (odd && random() % 40 == 0) l = kNan;
    }
    return logits;
}

Candidates all_of(const Logits& logits) {
    Candidates all;
    for (size_t i = 0; i < logits.size(); ++i) all.push_back({static_cast<int32_t>(i), logits[i]});
    return all;
}

/// The plain definition, from one full sort: p of each id that may be drawn.
std::map<int32_t, double> expected_distribution(const Logits& logits, const SamplingParams& o) {
    Candidates all = all_of(logits);
    std::erase_if(all, [](const Candidate& c) { return std::isnan(c.logit) || c.logit == -kInf; });
    std::stable_sort(all.begin(), all.end(),
                     [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
    if (o.top_k > 0 && o.top_k < static_cast<int64_t>(all.size())) all.resize(o.top_k);
    const auto normalised = [&](const Candidates& kept) {
        std::vector<double> p;
        double sum = 0;
        for (const Candidate& c : kept) sum += std::exp((c.logit - all[0].logit) / o.temperature);
        for (const Candidate& c : kept)
            p.push_back(std::exp((c.logit - all[0].logit) / o.temperature) / sum);
        return p;
    };
    std::vector<double> p = normalised(all);
    double sum = 0;
    size_t kept = 0;
    while (kept < p.size() && sum < o.top_p * (1 - 1e-12)) sum += p[kept++];
    all.resize(kept);
    p = normalised(all);
    while (all.size() > 1 && p[all.size() - 1] < o.min_p * p[0]) all.pop_back();
    p = normalised(all);
    std::map<int32_t, double> out;
    for (size_t i = 0; i < all.size(); ++i) out[all[i].id] = p[i];
    return out;
}

TEST(Argmax, TiesGoToTheLowestIdAndNanNeverWins) {
    EXPECT_EQ(argmax(Logits{1, 3, 3, 2}, 10), (Candidate{11, 3}));
    EXPECT_EQ(argmax(Logits{kNan, -5, kNan, -4}, 0), (Candidate{3, -4}));
    EXPECT_EQ(argmax(Logits{-kInf, -kInf}, 7), (Candidate{7, -kInf}));
    EXPECT_EQ(argmax(Logits{kNan, -kInf}, 7), (Candidate{8, -kInf}));
    EXPECT_EQ(argmax(Logits{0.0f, -0.0f}, 3).id, 3);
    EXPECT_EQ(argmax(Logits{-0.0f, 0.0f}, 3).id, 3);
    EXPECT_EQ(argmax(Logits{1, kInf, kInf}, 0).id, 1);
    EXPECT_EQ(argmax(Logits{}, 5).id, -1);
    EXPECT_EQ(argmax(Logits{kNan}, 5).id, -1);
}

TEST(Argmax, OfSlicesEqualsOfTheWhole) {
    std::mt19937 random(1);
    for (int round = 0; round < 300; ++round) {
        const Logits logits = random_logits(random, random() % 60);
        for (size_t slices = 1; slices <= 8; ++slices) {
            Candidates winners;
            for (size_t s = 0; s < slices; ++s) {
                const size_t begin = logits.size() * s / slices;
                const size_t end = logits.size() * (s + 1) / slices;
                winners.push_back(argmax(std::span(logits).subspan(begin, end - begin),
                                         static_cast<int32_t>(begin)));
            }
            std::shuffle(winners.begin(), winners.end(), random);
            ASSERT_EQ(argmax(winners), argmax(logits, 0));
        }
    }
}

TEST(TopCandidates, AreTheBestInOrder) {
    EXPECT_EQ(top_candidates(Logits{1, 3, kNan, 3, -kInf}, 100, 3),
              (Candidates{{101, 3}, {103, 3}, {100, 1}}));
    EXPECT_EQ(top_candidates(Logits{1, 3, kNan, 3, -kInf}, 100, 0),
              (Candidates{{100, 1}, {101, 3}, {103, 3}, {104, -kInf}}));
    EXPECT_EQ(top_candidates(Logits{2, 1}, 0, 1000), (Candidates{{0, 2}, {1, 1}}));
    EXPECT_EQ(top_candidates(Logits{}, 0, 3), Candidates{});
    EXPECT_EQ(top_candidates(Logits{2, 2, 2, 2, 2}, 0, 2), (Candidates{{0, 2}, {1, 2}}));
}

TEST(TopCandidates, MergedSlicesEqualTheWhole) {
    std::mt19937 random(2);
    for (int round = 0; round < 200; ++round) {
        const Logits logits = random_logits(random, random() % 300);
        const auto k = static_cast<int64_t>(random() % 80);
        const Candidates whole = top_candidates(logits, 0, k);
        for (size_t slices = 1; slices <= 8; ++slices) {
            std::vector<size_t> cuts{0, logits.size()};  // random, so some slices are empty
            while (cuts.size() < slices + 1) cuts.push_back(random() % (logits.size() + 1));
            std::sort(cuts.begin(), cuts.end());
            std::vector<Candidates> parts;
            for (size_t s = 0; s < slices; ++s)
                parts.push_back(
                    top_candidates(std::span(logits).subspan(cuts[s], cuts[s + 1] - cuts[s]),
                                   static_cast<int32_t>(cuts[s]), k));
            ASSERT_EQ(merge_candidates(parts, k), whole) << slices << " slices, k " << k;
        }
    }
    EXPECT_EQ(merge_candidates({}, 5), Candidates{});
}

TEST(Uniform, IsSpreadAndDependsOnEveryArgument) {
    constexpr int kBins = 64, kDraws = 64000;
    for (int which = 0; which < 3; ++which) {
        std::vector<int> bins(kBins);
        for (int i = 0; i < kDraws; ++i) {
            const double u = which == 0   ? uniform(i, 0, 0)
                             : which == 1 ? uniform(0, i, 0)
                                          : uniform(0, 0, i);
            ASSERT_GE(u, 0);
            ASSERT_LT(u, 1);
            ++bins[static_cast<int>(u * kBins)];
        }
        double chi2 = 0;
        for (const int n : bins) chi2 += std::pow(n - 1000.0, 2) / 1000;
        EXPECT_LT(chi2, 120) << which;  // 63 degrees of freedom: odds below 2e-5
        EXPECT_GT(chi2, 25) << which;   // nor suspiciously even
    }
    EXPECT_NE(uniform(1, 2, 3), uniform(2, 1, 3));
    EXPECT_NE(uniform(1, 2, 3), uniform(1, 3, 2));
    EXPECT_EQ(uniform(1, 2, 3), uniform(1, 2, 3));
}

struct Setting {
    SamplingParams options;
    size_t vocabulary;
};

TEST(Sample, DrawsFollowTheDistribution) {
    const Setting settings[] = {
        {{1, 0, 1, 0, 1}, 12},     {{0.7, 0, 1, 0, 2}, 12},   {{1.5, 5, 1, 0, 3}, 30},
        {{1, 0, 0.8, 0, 4}, 30},   {{1, 0, 1, 0.1, 5}, 30},   {{0.9, 12, 0.9, 0.05, 6}, 40},
        {{2, 0, 0.95, 0.2, 7}, 9}, {{1, 3, 0.999, 0, 8}, 20}, {{3, 0, 0.97, 0, 9}, 900},
    };
    std::mt19937 random(3);
    constexpr int kDraws = 20000;
    for (const Setting& s : settings) {
        const Logits logits = random_logits(random, s.vocabulary);
        const auto expected = expected_distribution(logits, s.options);
        std::map<int32_t, int> drawn;
        for (int i = 0; i < kDraws; ++i) ++drawn[sample(all_of(logits), s.options, 17, i)];
        double chi2 = 0, rare = 0;
        int degrees = -1, rare_drawn = 0;
        for (const auto& [id, p] : expected) {
            if (p * kDraws < 10) {  // too rare for the statistic: pooled
                rare += p * kDraws;
                rare_drawn += drawn[id];
                continue;
            }
            chi2 += std::pow(drawn[id] - p * kDraws, 2) / (p * kDraws);
            ++degrees;
        }
        if (rare > 0) chi2 += std::pow(rare_drawn - rare, 2) / std::max(rare, 1.0);
        // Five standard deviations above the mean of chi-square.
        EXPECT_LT(chi2, degrees + 1 + 5 * std::sqrt(2.0 * (degrees + 1)))
            << "seed " << s.options.seed;
        for (const auto& [id, n] : drawn)
            EXPECT_TRUE(n == 0 || expected.count(id)) << "id " << id << " was cut away";
    }
}

TEST(Sample, OrderAndSlicingOfTheCandidatesDoNotMatter) {
    std::mt19937 random(4);
    for (int round = 0; round < 400; ++round) {
        const Logits logits = random_logits(random, 1 + random() % 500, round % 2 == 0);
        const SamplingParams o{0.25 * static_cast<double>(1 + random() % 8),
                               static_cast<int64_t>(random() % 3 * 20), round % 3 ? 0.9 : 1.0,
                               round % 5 ? 0.02 : 0.0, random()};
        Candidates candidates = all_of(logits);
        if (argmax(logits, 0).id < 0 || argmax(logits, 0).logit == -kInf) continue;
        const int32_t id = sample(candidates, o, round, 5);
        std::shuffle(candidates.begin(), candidates.end(), random);
        ASSERT_EQ(sample(candidates, o, round, 5), id);
        ASSERT_EQ(sample(top_candidates(logits, 0, o.top_k), o, round, 5), id);
    }
}

TEST(Sample, EachSequencePositionAndSeedDrawsItsOwn) {
    const Candidates flat = all_of(Logits(1000, 0.0f));
    SamplingParams o{.temperature = 1, .seed = 1};
    const int32_t id = sample(flat, o, 1, 1);
    EXPECT_EQ(sample(flat, o, 1, 1), id);
    EXPECT_NE(sample(flat, o, 2, 1), id);
    EXPECT_NE(sample(flat, o, 1, 2), id);
    o.seed = 2;
    EXPECT_NE(sample(flat, o, 1, 1), id);
}

TEST(Sample, CutsLeaveAtLeastTheBest) {
    const Candidates candidates = all_of({1, 4, kNan, 4, 2, -kInf});
    for (int64_t i = 0; i < 200; ++i) {
        EXPECT_EQ(sample(candidates, {.temperature = 0}, 0, i), 1);
        EXPECT_EQ(sample(candidates, {.temperature = 1, .top_k = 1}, 0, i), 1);
        EXPECT_EQ(sample(candidates, {.temperature = 1, .top_p = 1e-300}, 0, i), 1);
        EXPECT_EQ(sample(candidates, {.temperature = 1e-300, .top_k = 3}, 0, i) % 2, 1);
        EXPECT_EQ(sample(candidates, {.temperature = 1, .min_p = 1}, 0, i) % 2, 1);
        EXPECT_EQ(sample(all_of({kInf, 3, kInf}), {.temperature = 1}, 0, i), 0);
        EXPECT_EQ(sample(all_of({-kInf, -kInf, -7}), {.temperature = 9}, 0, i), 2);
    }
}

TEST(Sample, TopPKeepsTheFewestThatReachIt) {
    // Ten equal candidates: nine sum to 0.9 exactly, a tenth would be one too many.
    std::map<int32_t, int> drawn;
    for (int64_t i = 0; i < 5000; ++i)
        ++drawn[sample(all_of(Logits(10, 1.5f)), {.temperature = 1, .top_p = 0.9}, 3, i)];
    EXPECT_EQ(drawn.size(), 9u);
    EXPECT_EQ(drawn.count(9), 0u);
}

TEST(Sample, RefusesLogitsWithoutANumber) {
    for (const Logits& logits : {Logits{}, Logits{kNan, kNan}, Logits{-kInf, kNan, -kInf}})
        for (const double temperature : {0.0, 1.0}) {
            try {
                sample(all_of(logits), {.temperature = temperature}, 0, 0);
                ADD_FAILURE();
            } catch (const Error& e) {
                EXPECT_EQ(e.code(), ErrorCode::kBadContent);
            }
        }
}

/// The plain definition, id by id.
Logits adjusted_plainly(const Logits& logits, const SamplingParams& p,
                        const std::vector<int32_t>& prompt, const std::vector<int32_t>& output) {
    Logits out;
    for (size_t i = 0; i < logits.size(); ++i) {
        const auto id = static_cast<int32_t>(i);
        const auto times = std::count(output.begin(), output.end(), id);
        float l = logits[i];
        for (const auto& [biased, bias] : p.logit_bias)
            if (biased == id) l = l + static_cast<float>(bias);
        if (times > 0 || std::count(prompt.begin(), prompt.end(), id) > 0)
            l = static_cast<float>(l > 0 ? l / p.repetition_penalty : l * p.repetition_penalty);
        if (times > 0)
            l -= static_cast<float>(p.frequency_penalty * static_cast<double>(times) +
                                    p.presence_penalty);
        out.push_back(l);
    }
    return out;
}

TEST(AdjustLogits, EqualsThePlainDefinition) {
    std::mt19937 random(11);
    const auto ids = [&](size_t vocabulary) {
        std::vector<int32_t> out(random() % 40);
        for (int32_t& id : out) id = static_cast<int32_t>(random() % vocabulary);
        return out;
    };
    const auto between = [&](double least, double most) {
        return std::uniform_real_distribution<double>(least, most)(random);
    };
    for (int round = 0; round < 400; ++round) {
        const Logits logits = random_logits(random, 1 + random() % 50);
        const auto prompt = ids(logits.size()), output = ids(logits.size());
        SamplingParams p;
        if (round & 1) p.repetition_penalty = between(0.01, 3);
        if (round & 2) p.frequency_penalty = between(-2, 2);
        if (round & 4) p.presence_penalty = between(-2, 2);
        if (round & 8)
            for (const int32_t id : ids(logits.size()))
                p.logit_bias.push_back({id, between(-100, 100)});
        Logits found = logits;
        adjust_logits(found, p, prompt, output);
        const Logits wanted = adjusted_plainly(logits, p, prompt, output);
        bool same = true;
        for (size_t i = 0; i < found.size(); ++i) {
            ASSERT_TRUE(found[i] == wanted[i] || (std::isnan(found[i]) && std::isnan(wanted[i])))
                << i << ": " << found[i] << ", wanted " << wanted[i];
            same &= found[i] == logits[i] || std::isnan(found[i]);
        }
        if (!adjusts_logits(p)) {
            EXPECT_TRUE(same);
        }
    }
}

TEST(AdjustLogits, FiguresByHand) {
    Logits logits{4, -4, 4, -4, 4, 0};
    SamplingParams p;
    p.repetition_penalty = 2;
    p.frequency_penalty = 0.5;
    p.presence_penalty = 0.25;
    p.logit_bias = {{4, -1.0}, {5, 1.0}, {5, 1.0}};
    EXPECT_TRUE(adjusts_logits(p));
    adjust_logits(logits, p, std::vector<int32_t>{0, 1, 1, 5}, std::vector<int32_t>{2, 3, 2, 0});
    EXPECT_EQ(logits, (Logits{1.25, -8, 0.75, -8.75, 3, 1}));
}

TEST(AdjustLogits, EachFieldAloneCounts) {
    EXPECT_FALSE(adjusts_logits({.temperature = 1, .top_k = 5, .top_p = 0.5, .min_p = 0.1}));
    EXPECT_TRUE(adjusts_logits({.repetition_penalty = 1.1}));
    EXPECT_TRUE(adjusts_logits({.frequency_penalty = -0.1}));
    EXPECT_TRUE(adjusts_logits({.presence_penalty = 0.1}));
    EXPECT_TRUE(adjusts_logits({.logit_bias = {{0, 0.0}}}));
}

TEST(Validate, NamesTheOption) {
    const double nan = std::nan("");
    const std::pair<SamplingParams, const char*> bad[] = {
        {{.temperature = -0.1}, "temperature"},
        {{.temperature = nan}, "temperature"},
        {{.temperature = INFINITY}, "temperature"},
        {{.top_k = -1}, "top_k"},
        {{.top_p = 0}, "top_p"},
        {{.top_p = 1.0001}, "top_p"},
        {{.top_p = nan}, "top_p"},
        {{.min_p = -0.5}, "min_p"},
        {{.min_p = 1.5}, "min_p"},
        {{.min_p = nan}, "min_p"},
        {{.repetition_penalty = 0}, "repetition_penalty"},
        {{.repetition_penalty = -1}, "repetition_penalty"},
        {{.repetition_penalty = nan}, "repetition_penalty"},
        {{.repetition_penalty = INFINITY}, "repetition_penalty"},
        {{.frequency_penalty = -2.5}, "frequency_penalty"},
        {{.frequency_penalty = nan}, "frequency_penalty"},
        {{.presence_penalty = 2.5}, "presence_penalty"},
        {{.presence_penalty = nan}, "presence_penalty"},
        {{.logit_bias = {{3, 1.0}, {3, 101.0}}}, "logit_bias"},
        {{.logit_bias = {{3, nan}}}, "logit_bias"},
        {{.logit_bias = {{-1, 1.0}}}, "logit_bias"},
        {{.logit_bias = {{10, 1.0}}}, "logit_bias"},
    };
    for (const auto& [options, name] : bad) {
        try {
            validate(options, 10);
            ADD_FAILURE() << name;
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kUsage);
            EXPECT_EQ(std::string(e.what()).find(name), 0u) << e.what();
        }
    }
    validate({}, 10);
    validate({2.5, 50, 1, 1, 0}, 10);
    validate({1, 0, 1e-9, 0, ~0ull}, 10);
    validate({.logit_bias = {{0, -100.0}, {9, 100.0}},
              .repetition_penalty = 0.01,
              .frequency_penalty = -2,
              .presence_penalty = 2},
             10);
}

}  // namespace
}  // namespace conclave::engine
