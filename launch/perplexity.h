// The figures of `conclave perplexity`: which tokens are scored, and what the scores come to.
#pragma once
#include <cstdint>
#include <span>

namespace conclave::launch {

/// Window i feeds tokens [stride * i, stride * i + window) of a text; each of them is scored by
/// how well it foretells the token after it.
struct Windows {
    int64_t window = 128, count = 24;
    int64_t stride = 0;  ///< 0: window

    int64_t begin(int64_t i) const { return (stride > 0 ? stride : window) * i; }
    /// Of the text, the last one scored included.
    int64_t tokens_needed() const { return begin(count - 1) + window + 1; }
    int64_t tokens_scored() const { return window * count; }
    /// How many windows a text of so many tokens has.
    int64_t that_fit(int64_t tokens) const;
};

/// -log of the probability of `token`, in nats: NaN if a logit is NaN or +inf, or all are -inf.
double negative_log_likelihood(std::span<const float> logits, int32_t token);

struct PerplexityFigures {
    double mean_nll = 0;    ///< nats
    double perplexity = 0;  ///< exp(mean_nll)
    double standard_error =
        0;  ///< of the perplexity, scores taken as independent; NaN of one score
};

/// All arithmetic is in double, and in the order of the scores.
PerplexityFigures perplexity_of(std::span<const double> scores);

}  // namespace conclave::launch
