// Activation rules once more, from their formulas: tables and double, one number at a time.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "quant/activation_rule.h"

namespace conclave::quant::test {

/// The finite magnitudes of a type of `exponent_bits` and `mantissa_bits`, rising: E4M3 has 127
/// (its last code is NaN), E2M1 has 8. With no mantissa, 2^exponent_bits numbers of their own.
inline std::vector<double> magnitudes(int exponent_bits, int mantissa_bits) {
    std::vector<double> all;
    const int bias = (1 << (exponent_bits - 1)) - 1;
    for (int code = 0; code < 1 << (exponent_bits + mantissa_bits); ++code) {
        const int m = code & ((1 << mantissa_bits) - 1), e = code >> mantissa_bits;
        all.push_back(e == 0 ? std::ldexp(m, 1 - bias - mantissa_bits)
                             : std::ldexp(m + (1 << mantissa_bits), e - bias - mantissa_bits));
    }
    if (exponent_bits == 4) all.pop_back();
    return all;
}

/// The nearest magnitude, the even code of two, the last for all beyond; the sign of v.
inline float nearest(float v, const std::vector<double>& all) {
    const double a = std::min(std::fabs(double{v}), all.back());
    size_t i = 0;
    while (i + 1 < all.size() && a > (all[i] + all[i + 1]) / 2) ++i;
    if (i + 1 < all.size() && a == (all[i] + all[i + 1]) / 2 && i % 2) ++i;
    return static_cast<float>(std::copysign(all[i], v));
}

/// == with all NaNs alike.
inline bool same_number(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

inline float reference_power_of_two(const ActivationRule& rule, float amax) {
    if (rule.scale_rule == ScaleRule::kCeilPow2) {
        const float s = std::max(amax, rule.least) / rule.top;
        int e = -127;
        while (e < 127 && std::ldexp(1.0, e) < s) ++e;
        return static_cast<float>(std::ldexp(1.0, e));
    }
    const auto pattern = std::bit_cast<uint32_t>(amax) + 0x200000;
    const int e = static_cast<int>(pattern >> 23) - static_cast<int>(rule.top);
    return static_cast<float>(std::ldexp(1.0, std::max(e, 0) - 127));
}

/// ScaleRule::kAmaxTimes. `outliers`: whether each column stays as it is.
inline std::vector<float> reference_amax_times(const ActivationRule& rule, const float* x,
                                               int64_t n, const std::vector<bool>& outliers) {
    float amax = 0;
    for (int64_t i = 0; i < n; ++i)
        if (!(rule.outlier > 0) || std::fabs(x[i]) < rule.outlier)
            amax = std::max(amax, std::fabs(x[i]));
    const float times = rule.top / amax, last = 1 / rule.top;
    std::vector<float> y(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
        const float code = std::clamp(std::nearbyint(x[i] * times), -128.0f, 127.0f);
        if (std::isfinite(times)) y[i] = (code * amax) * last;
        if (outliers[static_cast<size_t>(i)]) y[i] = x[i];
    }
    return y;
}

/// The outliers that a row has itself.
inline std::vector<bool> own_outliers(const ActivationRule& rule, const float* x, int64_t n) {
    std::vector<bool> outliers(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i)
        outliers[static_cast<size_t>(i)] = rule.outlier > 0 && std::fabs(x[i]) >= rule.outlier;
    return outliers;
}

/// A row, or group, of finite numbers.
inline std::vector<float> reference_group(const ActivationRule& rule, const float* x, int64_t n) {
    if (rule.scale_rule == ScaleRule::kAmaxTimes)
        return reference_amax_times(rule, x, n, own_outliers(rule, x, n));
    static const std::vector<double> e4m3 = magnitudes(4, 3), e2m1 = magnitudes(2, 1);
    const float lo = *std::min_element(x, x + n), hi = *std::max_element(x, x + n);
    const float amax = std::max(std::fabs(lo), std::fabs(hi));
    float s = rule.scale, zero = rule.zero, b = 0;
    const float g = rule.scale_rule == ScaleRule::kE4M3Times ? 1 / rule.scale : rule.scale;
    switch (rule.scale_rule) {
        case ScaleRule::kAbsMax:
            s = std::max(amax / rule.top, rule.least);
            break;
        case ScaleRule::kMinMax:
            s = (hi - lo) / 255;
            if (s == 0) s = 1;
            zero = std::nearbyint(-128 - lo / s);
            break;
        case ScaleRule::kCeilPow2:
        case ScaleRule::kEvenPow2:
            s = reference_power_of_two(rule, amax);
            break;
        case ScaleRule::kE4M3Times:
            b = nearest(g * amax / 6, e4m3);
            s = b * rule.scale;
            break;
        case ScaleRule::kE4M3Over:
            s = nearest(g * amax / 6, e4m3) / g;
            break;
        default:
            break;
    }
    std::vector<float> y(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
        float v = rule.reciprocal ? x[i] * (1 / s) : x[i] / s;
        if (rule.scale_rule == ScaleRule::kE4M3Times) v = x[i] * g / b;
        if (rule.scale_rule == ScaleRule::kE4M3Over) v = x[i] * (1 / s);
        if (s == 0)
            y[i] = 0;
        else if (!std::isfinite(s))
            y[i] = std::numeric_limits<float>::quiet_NaN();
        else if (rule.code == ActivationCode::kInt8)
            y[i] =
                (std::clamp(rule.zero_inside ? std::nearbyint(v + zero) : std::nearbyint(v) + zero,
                            -128.0f, 127.0f) -
                 zero) *
                s;
        else
            y[i] = nearest(v, rule.code == ActivationCode::kE4M3 ? e4m3 : e2m1) * s;
    }
    return y;
}

inline std::vector<float> reference(const ActivationRule& rule, const std::vector<float>& x) {
    const auto width = static_cast<int64_t>(x.size());
    const int64_t group = rule.dynamic() && rule.group > 0 ? rule.group : width;
    std::vector<float> y;
    for (int64_t c = 0; c < width; c += group) {
        const int64_t n = std::min(group, width - c);
        std::vector<float> part(static_cast<size_t>(n), std::numeric_limits<float>::quiet_NaN());
        if (std::all_of(&x[c], &x[c] + n, [](float v) { return std::isfinite(v); }))
            part = reference_group(rule, &x[c], n);
        y.insert(y.end(), part.begin(), part.end());
    }
    return y;
}

}  // namespace conclave::quant::test
