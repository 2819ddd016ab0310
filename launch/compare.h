// The figures of `conclave verify`: two sets of logits, and two greedy continuations, compared.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace conclave::launch {

/// Of a row that is not empty, in double. NaN if it has NaN or +inf, or nothing but -inf.
double log_sum_exp(std::span<const float> row);

/// All NaN when a logit of ours is not a finite number.
struct LogitFigures {
    double max_rel = 0;  ///< largest |ours - reference| / standard deviation of the reference
    double rms_rel = 0;  ///< root of the mean squared difference / the same deviation
    double kl_mean = 0;  ///< KL(softmax(reference) || softmax(ours)) of a position, in nats
    double kl_max = 0;
    double top1 = 0;  ///< share of positions whose largest logit has the same index
};

/// `reference` and `ours` hold positions x vocab logits and are equally long; `reference` is
/// finite. All arithmetic is in double.
LogitFigures compare_logits(std::span<const float> reference, std::span<const float> ours,
                            int64_t vocab);

/// Largest |difference| within `tolerance` deviations; false for NaN.
bool within(const LogitFigures& figures, double tolerance);

/// Below this margin (top-1 minus top-2 logit) rounding may choose the other token.
constexpr float kUnsafeMargin = 1e-2f;

struct GreedyFigures {
    std::optional<int64_t> first_diff;  ///< step; none where all tokens agree
    std::optional<double> margin;       ///< the reference's, at that step
    bool pass = true;                   ///< no difference before the first unsafe margin
};

/// `margins` is as long as `reference`, or empty (every step counts as safe).
GreedyFigures compare_greedy(std::span<const int32_t> reference, std::span<const int32_t> ours,
                             std::span<const float> margins);

/// Lower-case hex SHA-256 of the floats as 32-bit little-endian values.
std::string sha256(std::span<const float> values);

}  // namespace conclave::launch
