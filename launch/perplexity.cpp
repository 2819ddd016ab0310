#include "launch/perplexity.h"

#include <cmath>
#include <limits>

#include "launch/compare.h"
#include "runtime/base/error.h"

namespace conclave::launch {

int64_t Windows::that_fit(int64_t tokens) const {
    const int64_t step = begin(1);
    return tokens > window ? (tokens - window - 1) / step + 1 : 0;
}

double negative_log_likelihood(std::span<const float> logits, int32_t token) {
    CONCLAVE_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size());
    return log_sum_exp(logits) - logits[token];
}

PerplexityFigures perplexity_of(std::span<const double> scores) {
    CONCLAVE_CHECK(!scores.empty());
    const auto n = static_cast<double>(scores.size());
    PerplexityFigures f;
    double sum = 0, squares = 0;
    for (const double s : scores) sum += s;
    f.mean_nll = sum / n;
    for (const double s : scores) squares += (s - f.mean_nll) * (s - f.mean_nll);
    f.perplexity = std::exp(f.mean_nll);
    f.standard_error = scores.size() > 1 ? f.perplexity * std::sqrt(squares / (n - 1) / n)
                                         : std::numeric_limits<double>::quiet_NaN();
    return f;
}

}  // namespace conclave::launch
