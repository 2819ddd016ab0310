#include "runtime/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <string>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"

namespace conclave::engine {
namespace {

constexpr auto kBetter = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
};
constexpr auto kLowerId = [](const Candidate& a, const Candidate& b) { return a.id < b.id; };

/// The k best, best first; all, lowest id first, if k is 0: a vocabulary is long to sort.
void keep_best(std::vector<Candidate>& candidates, int64_t k) {
    if (k == 0) {
        if (!std::is_sorted(candidates.begin(), candidates.end(), kLowerId))
            std::sort(candidates.begin(), candidates.end(), kLowerId);
        return;
    }
    if (k < static_cast<int64_t>(candidates.size())) {
        std::nth_element(candidates.begin(), candidates.begin() + k, candidates.end(), kBetter);
        candidates.resize(static_cast<size_t>(k));
    }
    std::sort(candidates.begin(), candidates.end(), kBetter);
}

/// A bijection of 64 bits in which every input bit changes each output bit with odds of one half
/// (the finaliser of SplitMix64).
uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/// p of each candidate relative to the best one's.
std::vector<double> weights_of(const std::vector<Candidate>& candidates, float best,
                               double temperature) {
    std::vector<double> weights;
    weights.reserve(candidates.size());
    for (const Candidate& c : candidates)
        weights.push_back(std::exp((static_cast<double>(c.logit) - best) / temperature));
    return weights;
}

double sum_of(const std::vector<double>& weights) {
    double sum = 0;
    for (const double w : weights) sum += w;
    return sum;
}

/// Cuts candidates, of which the whole set weighs `total`, to the fewest that hold top_p of it.
/// Nuclei are small as a rule: sorts ever longer fronts, not the vocabulary.
void keep_nucleus(std::vector<Candidate>& candidates, double total, float best,
                  const SamplingParams& params) {
    double sum = 0;
    size_t kept = 0, sorted = 0;
    const size_t size = candidates.size();
    while (kept < size && sum < params.top_p * total) {
        if (kept == sorted) {
            const size_t front = std::min(size, std::max<size_t>(256, sorted * 8));
            std::partial_sort(candidates.begin() + static_cast<int64_t>(sorted),
                              candidates.begin() + static_cast<int64_t>(front), candidates.end(),
                              kBetter);
            sorted = front;
        }
        const double logit = candidates[kept++].logit;
        sum += std::exp((logit - best) / params.temperature);
    }
    candidates.resize(kept);
}

}  // namespace

void validate(const SamplingParams& params, int64_t vocab_size) {
    const auto refuse = [](const char* name, const std::string& expected,
                           const std::string& found) {
        throw Error(ErrorCode::kUsage, std::string(name) + " is out of range")
            .expected(expected)
            .found(found);
    };
    // Written so that NaN fails each.
    const auto within = [&](const char* name, double value, double least, double most) {
        if (value >= least && value <= most) return;
        const auto text = [](double v) { return fmt::format("{:g}", v); };
        refuse(name, "from " + text(least) + " to " + text(most), text(value));
    };
    if (!(params.temperature >= 0) || std::isinf(params.temperature))
        refuse("temperature", "a finite number, at least 0", std::to_string(params.temperature));
    if (params.top_k < 0) refuse("top_k", "at least 0", std::to_string(params.top_k));
    if (!(params.top_p > 0 && params.top_p <= 1))
        refuse("top_p", "above 0, at most 1", std::to_string(params.top_p));
    within("min_p", params.min_p, 0, 1);
    within("repetition_penalty", params.repetition_penalty, 0.01, 100);
    within("frequency_penalty", params.frequency_penalty, -2, 2);
    within("presence_penalty", params.presence_penalty, -2, 2);
    for (const auto& [id, bias] : params.logit_bias) {
        if (id < 0 || id >= vocab_size)
            throw Error(ErrorCode::kUsage, "logit_bias has a token id outside the vocabulary")
                .expected(fmt::format("0 .. {}", vocab_size - 1))
                .found(std::to_string(id));
        within("logit_bias", bias, -100, 100);
    }
}

bool adjusts_logits(const SamplingParams& params) {
    return !params.logit_bias.empty() || params.repetition_penalty != 1 ||
           params.frequency_penalty != 0 || params.presence_penalty != 0;
}

void adjust_logits(std::span<float> logits, const SamplingParams& params,
                   std::span<const int32_t> prompt, std::span<const int32_t> output) {
    for (const auto& [id, bias] : params.logit_bias) logits[id] += static_cast<float>(bias);
    std::vector<int32_t> times(logits.size(), 0);  // generated
    std::vector<int32_t> seen;                     // each id once
    for (const int32_t id : output)
        if (times[id]++ == 0) seen.push_back(id);
    const size_t generated = seen.size();
    if (params.repetition_penalty != 1) {
        std::vector<bool> known(logits.size(), false);
        for (const int32_t id : seen) known[id] = true;
        for (const int32_t id : prompt)
            if (!known[id]) {
                known[id] = true;
                seen.push_back(id);
            }
        for (const int32_t id : seen) {
            const double l = logits[id], p = params.repetition_penalty;
            logits[id] = static_cast<float>(l > 0 ? l / p : l * p);
        }
    }
    for (const int32_t id : std::span(seen).first(generated))
        logits[id] -=
            static_cast<float>(params.frequency_penalty * times[id] + params.presence_penalty);
}

Candidate argmax(std::span<const float> logits, int32_t first_id) {
    Candidate best;
    for (size_t i = 0; i < logits.size(); ++i)
        if (!std::isnan(logits[i]) && (best.id < 0 || logits[i] > best.logit))
            best = {first_id + static_cast<int32_t>(i), logits[i]};
    return best;
}

Candidate argmax(std::span<const Candidate> candidates) {
    Candidate best;
    for (const Candidate& c : candidates)
        if (c.id >= 0 && !std::isnan(c.logit) && (best.id < 0 || kBetter(c, best))) best = c;
    return best;
}

std::vector<Candidate> top_candidates(std::span<const float> logits, int32_t first_id, int64_t k) {
    std::vector<Candidate> all;
    all.reserve(logits.size());
    for (size_t i = 0; i < logits.size(); ++i)
        if (!std::isnan(logits[i])) all.push_back({first_id + static_cast<int32_t>(i), logits[i]});
    keep_best(all, k);
    return all;
}

std::vector<Candidate> merge_candidates(std::span<const std::vector<Candidate>> slices, int64_t k) {
    std::vector<Candidate> all;
    for (const std::vector<Candidate>& slice : slices)
        all.insert(all.end(), slice.begin(), slice.end());
    keep_best(all, k);
    return all;
}

double uniform(uint64_t seed, uint64_t sequence_key, int64_t position) {
    // Each step adds an odd constant first, so that zeros do not stay zeros.
    uint64_t h = mix(seed + 0x9e3779b97f4a7c15);
    h = mix((h ^ sequence_key) + 0x9e3779b97f4a7c15);
    h = mix((h ^ static_cast<uint64_t>(position)) + 0x9e3779b97f4a7c15);
    return static_cast<double>(h >> 11) * 0x1p-53;
}

int32_t sample(std::vector<Candidate> candidates, const SamplingParams& params,
               uint64_t sequence_key, int64_t position) {
    const Candidate best = argmax(candidates);
    if (best.id < 0 || best.logit == -INFINITY)
        throw Error(ErrorCode::kBadContent, "no token can be chosen from these logits")
            .expected("a number")
            .found("only NaN and -inf");
    // +inf has all the probability there is; the lowest id of several, as in greedy choice.
    if (params.temperature == 0 || std::isinf(best.logit)) return best.id;
    std::erase_if(candidates, [](const Candidate& c) { return !(c.logit > -INFINITY); });
    // From here on every sum runs in one order, whatever order the candidates came in.
    keep_best(candidates, params.top_k);
    std::vector<double> weights = weights_of(candidates, best.logit, params.temperature);
    if (params.top_p < 1) {
        keep_nucleus(candidates, sum_of(weights), best.logit, params);
        weights = weights_of(candidates, best.logit, params.temperature);
    }
    for (double& w : weights)
        if (w < params.min_p) w = 0;
    // The first whose running sum passes u * total; the best one if rounding lets none pass.
    const double mark = uniform(params.seed, sequence_key, position) * sum_of(weights);
    double running = 0;
    for (size_t i = 0; i < weights.size(); ++i)
        if ((running += weights[i]) > mark) return candidates[i].id;
    return best.id;
}

}  // namespace conclave::engine
