#include "quant/quantize_row.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kTopE4M3 = 448, kTopE2M1 = 6;

/// How one row or group becomes codes: code = round((x * times) / over) + zero, value =
/// (code - zero) * scale. One of times and over is 1, but for kE4M3Times. A scale of 0: all zeros.
/// NaN: the row is not finite, or its scale is too large for f32.
struct GroupScale {
    float times = 1, over = 1, scale = 0, zero = 0;
};

/// The greatest x[i] and -x[i], both infinite where an x is not finite.
struct Range {
    float most = -kInf, negated = -kInf;
    float amax() const { return std::max(most, negated); }
};

Range range_of(const float* x, int64_t n) {
    Range r;
    for (int64_t i = 0; i < n; ++i) {
        if (!std::isfinite(x[i])) return {kInf, kInf};
        r.most = std::max(r.most, x[i]);
        r.negated = std::max(r.negated, -x[i]);
    }
    return r;
}

float round_minifloat(float v, float top, int mantissa_bits, int least_exponent) {
    v = std::min(std::max(v, -top), top);
    const int exponent = v == 0 ? least_exponent : std::max(std::ilogb(v), least_exponent);
    return std::ldexp(std::nearbyint(std::ldexp(v, mantissa_bits - exponent)),
                      exponent - mantissa_bits);
}
float round_e4m3(float v) { return round_minifloat(v, kTopE4M3, 3, -6); }
float round_e2m1(float v) { return round_minifloat(v, kTopE2M1, 1, 0); }

/// 2^e, 2^-127 included.
float power_of_two(int e) { return std::ldexp(1.0f, e); }

float ceil_power(float v) {
    int exponent = 0;
    const float fraction = std::frexp(v, &exponent);
    if (fraction == 0.5f) --exponent;
    return power_of_two(std::clamp(exponent, -127, 127));
}

/// As ScaleRule::kEvenPow2 says; the exponent is clamped to those that E8M0 has.
float even_power(float amax, float top) {
    const uint32_t bits = std::bit_cast<uint32_t>(amax) + 0x200000;
    const int stored = static_cast<int>(bits >> 23 & 0xff) - static_cast<int>(top);
    return power_of_two(std::clamp(stored, 0, 254) - 127);
}

GroupScale one_scale(const ActivationRule& rule, float scale, float zero = 0) {
    if (!std::isfinite(scale)) return {.scale = kNaN};
    if (!rule.reciprocal) return {.over = scale, .scale = scale, .zero = zero};
    const float times = 1 / scale;
    return {.times = times, .scale = std::isfinite(times) ? scale : 0, .zero = zero};
}

GroupScale min_max_scale(const ActivationRule& rule, const float* statistics) {
    const float most = statistics[0], least = -statistics[1];
    float scale = (most - least) / 255;
    // A row that has one value: it is kept to the next whole number, a row of zeros exactly.
    if (scale == 0) scale = 1;
    return one_scale(rule, scale, std::nearbyint(-128 - least / scale));
}

GroupScale e4m3_scale(const ActivationRule& rule, float amax) {
    const bool times = rule.scale_rule == ScaleRule::kE4M3Times;
    const float g = times ? 1 / rule.scale : rule.scale;
    const float stored = round_e4m3(g * amax / kTopE2M1);
    if (!(stored > 0)) return {};
    if (times) return {.times = g, .over = stored, .scale = stored * rule.scale};
    const float scale = stored / g, inverse = 1 / scale;
    return {.times = inverse, .scale = std::isfinite(inverse) ? scale : 0};
}

/// Of the group whose statistics these are. A static rule has one: amax, for what is not finite.
GroupScale group_scale(const ActivationRule& rule, const float* statistics) {
    const float amax = statistics[0];
    if (!(amax < kInf)) return {.scale = kNaN};
    switch (rule.scale_rule) {
        case ScaleRule::kStatic:
            return one_scale(rule, rule.scale, rule.zero);
        case ScaleRule::kAbsMax:
            return one_scale(rule, std::max(amax / rule.top, rule.least));
        case ScaleRule::kMinMax:
            return min_max_scale(rule, statistics);
        case ScaleRule::kCeilPow2:
            return one_scale(rule, ceil_power(std::max(amax, rule.least) / rule.top));
        case ScaleRule::kEvenPow2:
            return one_scale(rule, even_power(amax, rule.top));
        case ScaleRule::kE4M3Times:
        case ScaleRule::kE4M3Over:
            return e4m3_scale(rule, amax);
        case ScaleRule::kNone:
        case ScaleRule::kBlocks:
            break;
    }
    CONCLAVE_CHECK(false);
}

float int8_code(const ActivationRule& rule, const GroupScale& g, float x) {
    const float v = x * g.times / g.over;
    const float code = rule.zero_inside ? std::nearbyint(v + g.zero) : std::nearbyint(v) + g.zero;
    return std::min(std::max(code, -128.0f), 127.0f);
}

void quantize_group(const ActivationRule& rule, const GroupScale& g, const float* x, int64_t n,
                    float* out) {
    for (int64_t i = 0; i < n; ++i) {
        if (g.scale == 0 || std::isnan(g.scale))
            out[i] = g.scale;
        else if (rule.code == ActivationCode::kInt8)
            out[i] = (int8_code(rule, g, x[i]) - g.zero) * g.scale;
        else if (rule.code == ActivationCode::kE4M3)
            out[i] = round_e4m3(x[i] * g.times / g.over) * g.scale;
        else
            out[i] = round_e2m1(x[i] * g.times / g.over) * g.scale;
    }
}

/// body(group, begin, end) for each group of which columns are held; begin and end count from the
/// first column held.
template <class Body>
void for_groups(const ActivationRule& rule, const RowSpan& span, Body body) {
    const int64_t width = rule.dynamic() && rule.group > 0 ? rule.group : span.width;
    for (int64_t c = span.columns.begin; c < span.columns.end;) {
        const int64_t group = c / width;
        const int64_t end = std::min(span.columns.end, (group + 1) * width);
        body(group, c - span.columns.begin, end - span.columns.begin);
        c = end;
    }
}

}  // namespace

int64_t statistics_per_row(const ActivationRule& rule, int64_t width) {
    if (!rule.dynamic()) return 0;
    if (rule.scale_rule == ScaleRule::kMinMax) return 2;
    return rule.group > 0 ? ceil_div(width, rule.group) : 1;
}

void row_statistics(const ActivationRule& rule, const float* x, const RowSpan& span,
                    const VectorOps&, float* out) {
    if (!rule.dynamic()) return;
    if (rule.scale_rule == ScaleRule::kMinMax) {
        const Range r = range_of(x, span.columns.size());
        out[0] = r.most;
        out[1] = r.negated;
        return;
    }
    std::fill_n(out, statistics_per_row(rule, span.width), -kInf);
    for_groups(rule, span, [&](int64_t group, int64_t begin, int64_t end) {
        out[group] = range_of(x + begin, end - begin).amax();
    });
}

void quantize_row(const ActivationRule& rule, const float* x, const RowSpan& span,
                  const float* statistics, const VectorOps& ops, float* out) {
    const int64_t n = span.columns.size();
    if (rule.code == ActivationCode::kF32) {
        std::memmove(out, x, static_cast<size_t>(n) * sizeof(float));
        return;
    }
    if (rule.code == ActivationCode::kBF16) return ops.round_bf16(x, n, out);
    CONCLAVE_CHECK(statistics || !rule.dynamic());
    const float held = rule.dynamic() ? 0 : range_of(x, n).amax();
    if (!rule.dynamic()) statistics = &held;
    for_groups(rule, span, [&](int64_t group, int64_t begin, int64_t end) {
        quantize_group(rule, group_scale(rule, statistics + group), x + begin, end - begin,
                       out + begin);
    });
}

void quantize_int8_row(const ActivationRule& rule, const float* x, const RowSpan& span,
                       const float* statistics, const Grouping& groups, const VectorOps&,
                       std::byte* out) {
    CONCLAVE_CHECK(rule.code == ActivationCode::kInt8 && (statistics || !rule.dynamic()));
    CONCLAVE_CHECK(groups.columns == span.columns.size());
    const float held = rule.dynamic() ? 0 : range_of(x, span.columns.size()).amax();
    GroupScale g = group_scale(rule, rule.dynamic() ? statistics : &held);
    const bool zeros = g.scale == 0 || std::isnan(g.scale);
    if (zeros) g.zero = 0;
    int8_t* codes = reinterpret_cast<int8_t*>(out);
    std::byte* tail = out + int8_scales_at(groups);
    std::memcpy(tail, &g.scale, 4);
    std::memcpy(tail + 4, &g.zero, 4);
    int64_t column = 0;
    for (size_t r = 0; r < groups.runs.size(); ++r) {
        const int64_t n = groups.runs[r].columns;
        int32_t sum = 0;
        for (int64_t i = 0; i < n; ++i, ++column) {
            const size_t at = static_cast<size_t>(column);
            const int64_t from = groups.order.empty() ? column : groups.order[at];
            codes[i] = zeros ? int8_t{0} : static_cast<int8_t>(int8_code(rule, g, x[from]));
            sum += codes[i];
        }
        for (int64_t i = n; i < round_up(n, kRunGranule); ++i) codes[i] = 0;
        codes += round_up(n, kRunGranule);
        std::memcpy(tail + 8 + r * 4, &sum, 4);
    }
}

}  // namespace conclave::quant
