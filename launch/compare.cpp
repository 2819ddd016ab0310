#include "launch/compare.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>

#include "runtime/base/error.h"

namespace conclave::launch {
namespace {

double standard_deviation(std::span<const float> values) {
    double sum = 0;
    for (const float v : values) sum += v;
    const double mean = sum / static_cast<double>(values.size());
    double squares = 0;
    for (const float v : values) squares += (v - mean) * (v - mean);
    return std::sqrt(squares / static_cast<double>(values.size()));
}

/// Never below zero but for rounding, which is cut off.
double kl_divergence(std::span<const float> p, std::span<const float> q) {
    const double p_norm = log_sum_exp(p), q_norm = log_sum_exp(q);
    double sum = 0;
    for (size_t i = 0; i < p.size(); ++i) {
        const double log_p = p[i] - p_norm;
        sum += std::exp(log_p) * (log_p - (q[i] - q_norm));
    }
    return std::max(0.0, sum);
}

auto argmax(std::span<const float> row) {
    return std::max_element(row.begin(), row.end()) - row.begin();
}

}  // namespace

double log_sum_exp(std::span<const float> row) {
    const double top = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const float v : row) sum += std::exp(v - top);
    return top + std::log(sum);
}

LogitFigures compare_logits(std::span<const float> reference, std::span<const float> ours,
                            int64_t vocab) {
    CONCLAVE_CHECK(vocab > 0 && !reference.empty() && reference.size() == ours.size() &&
                   reference.size() % static_cast<size_t>(vocab) == 0);
    if (!std::all_of(ours.begin(), ours.end(), [](float v) { return std::isfinite(v); })) {
        constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
        return {kNan, kNan, kNan, kNan, kNan};
    }
    LogitFigures f;
    double squares = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
        const double difference = double{ours[i]} - double{reference[i]};
        f.max_rel = std::max(f.max_rel, std::abs(difference));
        squares += difference * difference;
    }
    const double rms = std::sqrt(squares / static_cast<double>(ours.size()));
    const double deviation = standard_deviation(reference);
    f.max_rel = f.max_rel > 0 ? f.max_rel / deviation : 0;
    f.rms_rel = rms > 0 ? rms / deviation : 0;

    const auto width = static_cast<size_t>(vocab);
    const size_t positions = ours.size() / width;
    size_t agree = 0;
    for (size_t p = 0; p < positions; ++p) {
        const auto expected = reference.subspan(p * width, width);
        const auto found = ours.subspan(p * width, width);
        const double kl = kl_divergence(expected, found);
        f.kl_mean += kl / static_cast<double>(positions);
        f.kl_max = std::max(f.kl_max, kl);
        agree += argmax(expected) == argmax(found);
    }
    f.top1 = static_cast<double>(agree) / static_cast<double>(positions);
    return f;
}

bool within(const LogitFigures& figures, double tolerance) { return figures.max_rel <= tolerance; }

GreedyFigures compare_greedy(std::span<const int32_t> reference, std::span<const int32_t> ours,
                             std::span<const float> margins) {
    CONCLAVE_CHECK(margins.empty() || margins.size() == reference.size());
    for (size_t i = 0; i < reference.size(); ++i) {
        if (i < ours.size() && ours[i] == reference[i]) continue;
        GreedyFigures g;
        g.first_diff = static_cast<int64_t>(i);
        if (!margins.empty()) g.margin = margins[i];
        const auto unsafe = std::find_if(margins.begin(), margins.end(),
                                         [](float m) { return !(m >= kUnsafeMargin); });
        g.pass = unsafe != margins.end() && unsafe - margins.begin() <= *g.first_diff;
        return g;
    }
    return {};
}

std::string sha256(std::span<const float> values) {
    static_assert(std::endian::native == std::endian::little);
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                          &EVP_MD_CTX_free);
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned length = 0;
    CONCLAVE_CHECK(context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1 &&
                   EVP_DigestUpdate(context.get(), values.data(), values.size_bytes()) == 1 &&
                   EVP_DigestFinal_ex(context.get(), digest.data(), &length) == 1);
    std::string hex;
    for (unsigned i = 0; i < length; ++i) {
        hex += "0123456789abcdef"[digest[i] >> 4];
        hex += "0123456789abcdef"[digest[i] & 15];
    }
    return hex;
}

}  // namespace conclave::launch
