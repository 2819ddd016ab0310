#include "quant/quantize_row.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// How one row or group becomes codes.
struct GroupScale {
    /// A scale of 0 stands for zeros, NaN for a group that is not finite or whose scale is too
    /// large for f32: then nothing is rounded.
    CodeRounding rounding;
    float last = 1;  ///< what code * scale is multiplied by

    static GroupScale constant(float scale) { return {{.scale = scale}}; }
    bool rounds() const { return rounding.scale != 0 && !std::isnan(rounding.scale); }
};

float round_e4m3(float v) {
    const Minifloat& t = kMinifloatE4M3;
    v = std::clamp(v, -t.top, t.top);
    const auto exponent = std::bit_cast<uint32_t>(v) & 0x7f800000;
    const float unit = std::max(std::bit_cast<float>(exponent), t.least) * t.magic;
    return (v + unit) - unit;
}

/// 2^(stored - 127), the exponent as f32 and E8M0 store it, within 0 .. 254.
float stored_power(int stored) {
    stored = std::clamp(stored, 0, 254);
    return std::bit_cast<float>(stored == 0 ? 0x400000u : static_cast<uint32_t>(stored) << 23);
}

float ceil_power(float v) {
    if (v <= 0x1p-127f) return 0x1p-127f;
    return stored_power(static_cast<int>((std::bit_cast<uint32_t>(v) + 0x7fffff) >> 23));
}

/// As ScaleRule::kEvenPow2 says.
float even_power(float amax, float top) {
    const uint32_t bits = std::bit_cast<uint32_t>(amax) + 0x200000;
    return stored_power(static_cast<int>(bits >> 23) - static_cast<int>(top));
}

GroupScale one_scale(const ActivationRule& rule, float scale, float zero = 0) {
    if (!std::isfinite(scale)) return GroupScale::constant(kNaN);
    GroupScale g{{.scale = scale, .zero = zero}};
    (rule.zero_inside ? g.rounding.before : g.rounding.after) = zero;
    (rule.reciprocal ? g.rounding.times : g.rounding.over) = rule.reciprocal ? 1 / scale : scale;
    return std::isfinite(g.rounding.times) ? g : GroupScale::constant(0);
}

/// E8M0 scales have exact inverses.
GroupScale power_scale(float scale) { return {{.times = 1 / scale, .scale = scale}}; }

GroupScale min_max_scale(const ActivationRule& rule, const float* statistics) {
    const float most = statistics[0], least = -statistics[1];
    float scale = (most - least) / 255;
    // A row of one value is rounded to a whole number: a row of zeros stays one.
    if (scale == 0) scale = 1;
    return one_scale(rule, scale, std::nearbyint(-128 - least / scale));
}

GroupScale e4m3_scale(const ActivationRule& rule, float amax) {
    const bool times = rule.scale_rule == ScaleRule::kE4M3Times;
    const float g = times ? 1 / rule.scale : rule.scale;
    const float stored = std::isfinite(g) ? round_e4m3(g * amax / kMinifloatE2M1.top) : 0;
    if (!(stored > 0)) return GroupScale::constant(0);
    if (times) return {{.times = g, .over = stored, .scale = stored * rule.scale}};
    const float scale = stored / g, inverse = 1 / scale;
    return std::isfinite(inverse) ? GroupScale{{.times = inverse, .scale = scale}}
                                  : GroupScale::constant(0);
}

/// Of the group whose statistics these are. A static rule has one: amax, for what is not finite.
GroupScale group_scale(const ActivationRule& rule, const float* statistics) {
    const float amax = statistics[0];
    if (!(amax < kInf)) return GroupScale::constant(kNaN);
    switch (rule.scale_rule) {
        case ScaleRule::kStatic:
            return one_scale(rule, rule.scale, rule.zero);
        case ScaleRule::kAbsMax:
            return one_scale(rule, std::max(amax / rule.top, rule.least));
        case ScaleRule::kAmaxTimes:
            if (amax == 0 || !std::isfinite(rule.top / amax)) return GroupScale::constant(0);
            return {{.times = rule.top / amax, .scale = amax}, 1 / rule.top};
        case ScaleRule::kMinMax:
            return min_max_scale(rule, statistics);
        case ScaleRule::kCeilPow2:
            return power_scale(ceil_power(std::max(amax, rule.least) / rule.top));
        case ScaleRule::kEvenPow2:
            return power_scale(even_power(amax, rule.top));
        case ScaleRule::kE4M3Times:
        case ScaleRule::kE4M3Over:
            return e4m3_scale(rule, amax);
        case ScaleRule::kNone:
        case ScaleRule::kBlocks:
            break;
    }
    CONCLAVE_CHECK(false);
}

void quantize_group(const ActivationRule& rule, const GroupScale& g, const float* x, int64_t n,
                    const VectorOps& ops, float* out) {
    if (!g.rounds())
        std::fill_n(out, n, g.rounding.scale);
    else if (rule.code == ActivationCode::kInt8)
        ops.round_int8(g.rounding, x, n, out);
    else
        ops.round_minifloat(rule.code == ActivationCode::kE4M3 ? kMinifloatE4M3 : kMinifloatE2M1,
                            g.rounding, x, n, out);
    if (g.last != 1) ops.scale(g.last, out, n, out);
}

/// As quantize_group(), but for the outliers.
void quantize_others(const ActivationRule& rule, const GroupScale& g, const float* x, int64_t n,
                     const uint32_t* outliers, const VectorOps& ops, float* out) {
    if (std::isnan(g.rounding.scale)) return quantize_group(rule, g, x, n, ops, out);
    constexpr int64_t kAtOnce = 256;
    float rounded[kAtOnce];
    uint32_t own[kAtOnce], stay[kAtOnce], numbers[kAtOnce];
    for (int64_t c = 0; c < n; c += kAtOnce) {
        const int64_t part = std::min(kAtOnce, n - c);
        const uint32_t* marked = outliers ? outliers + c : own;
        if (!outliers) {
            std::fill_n(own, part, 0u);
            mark_outliers(rule, x + c, part, own);
        }
        quantize_group(rule, g, x + c, part, ops, rounded);
        std::memcpy(stay, x + c, static_cast<size_t>(part) * sizeof(float));
        std::memcpy(numbers, rounded, static_cast<size_t>(part) * sizeof(float));
        for (int64_t i = 0; i < part; ++i)
            numbers[i] = (stay[i] & marked[i]) | (numbers[i] & ~marked[i]);
        std::memcpy(out + c, numbers, static_cast<size_t>(part) * sizeof(float));
    }
}

/// max|x| of what is no outlier; infinity where an x is not finite.
float inner_amax(float outlier, const float* x, int64_t n, const VectorOps& ops) {
    constexpr int64_t kAtOnce = 256;
    constexpr float kMost = std::numeric_limits<float>::max();
    float inner[kAtOnce], most = 0;
    for (int64_t c = 0; c < n; c += kAtOnce) {
        const int64_t part = std::min(kAtOnce, n - c);
        for (int64_t i = 0; i < part; ++i) {
            const float size = std::fabs(x[c + i]);
            inner[i] = size >= outlier && size <= kMost ? 0 : size;
        }
        float amax = 0;
        ops.group_amax(inner, part, part, &amax);
        most = std::max(most, amax);
    }
    return most;
}

/// Columns that share a scale.
int64_t group_width(const ActivationRule& rule, const RowSpan& span) {
    return rule.dynamic() && rule.group > 0 ? rule.group : span.width;
}

float whole_amax(const float* x, int64_t n, const VectorOps& ops) {
    float amax = 0;
    if (n > 0) ops.group_amax(x, n, n, &amax);
    return amax;
}

/// The codes of a run and their sum.
int32_t code_run(const GroupScale& g, const float* x, int64_t n, const int32_t* order,
                 const VectorOps& ops, int8_t* codes) {
    constexpr int64_t kAtOnce = 256;
    float gathered[kAtOnce];
    int32_t sum = 0;
    for (int64_t c = 0; c < n; c += kAtOnce) {
        const int64_t part = std::min(kAtOnce, n - c);
        if (order)
            for (int64_t i = 0; i < part; ++i) gathered[i] = x[order[c + i]];
        int32_t part_sum = 0;
        ops.code_int8(g.rounding, order ? gathered : x + c, part, codes + c, &part_sum);
        sum += part_sum;
    }
    return sum;
}

}  // namespace

int64_t statistics_per_row(const ActivationRule& rule, int64_t width) {
    if (!rule.dynamic()) return 0;
    if (rule.scale_rule == ScaleRule::kMinMax) return 2;
    return rule.group > 0 ? ceil_div(width, rule.group) : 1;
}

void row_statistics(const ActivationRule& rule, const float* x, const RowSpan& span,
                    const VectorOps& ops, float* out) {
    if (!rule.dynamic()) return;
    const int64_t n = span.columns.size();
    if (rule.scale_rule == ScaleRule::kMinMax) return ops.range(x, n, &out[0], &out[1]);
    std::fill_n(out, statistics_per_row(rule, span.width), -kInf);
    if (n <= 0) return;
    const int64_t width = group_width(rule, span), group = span.columns.begin / width;
    const int64_t head = std::min(n, (group + 1) * width - span.columns.begin);
    if (rule.outlier > 0) {
        CONCLAVE_CHECK(rule.group == 0);
        out[0] = inner_amax(rule.outlier, x, n, ops);
        return;
    }
    ops.group_amax(x, head, head, out + group);
    ops.group_amax(x + head, n - head, width, out + group + 1);
}

void mark_outliers(const ActivationRule& rule, const float* x, int64_t n, uint32_t* columns) {
    const float outlier = rule.outlier;
    for (int64_t i = 0; i < n; ++i) columns[i] |= std::fabs(x[i]) >= outlier ? ~0u : 0u;
}

void quantize_row(const ActivationRule& rule, const float* x, const RowSpan& span,
                  const float* statistics, const VectorOps& ops, float* out,
                  const uint32_t* outliers) {
    const int64_t n = span.columns.size();
    if (rule.code == ActivationCode::kF32) {
        std::memmove(out, x, static_cast<size_t>(n) * sizeof(float));
        return;
    }
    if (rule.code == ActivationCode::kBF16) return ops.round_bf16(x, n, out);
    CONCLAVE_CHECK(statistics || !rule.dynamic());
    const float held = rule.dynamic() ? 0 : whole_amax(x, n, ops);
    if (!rule.dynamic()) statistics = &held;
    const int64_t width = group_width(rule, span);
    for (int64_t c = 0; c < n;) {
        const int64_t group = (span.columns.begin + c) / width;
        const int64_t end = std::min(n, (group + 1) * width - span.columns.begin);
        const GroupScale g = group_scale(rule, statistics + group);
        if (rule.outlier > 0)
            quantize_others(rule, g, x + c, end - c, outliers ? outliers + c : nullptr, ops,
                            out + c);
        else
            quantize_group(rule, g, x + c, end - c, ops, out + c);
        c = end;
    }
}

void quantize_int8_row(const ActivationRule& rule, const float* x, const RowSpan& span,
                       const float* statistics, const Grouping& groups, const VectorOps& ops,
                       std::byte* out) {
    CONCLAVE_CHECK(rule.code == ActivationCode::kInt8 && (statistics || !rule.dynamic()));
    CONCLAVE_CHECK(!(rule.outlier > 0));
    CONCLAVE_CHECK(groups.columns == span.columns.size());
    const float held = rule.dynamic() ? 0 : whole_amax(x, groups.columns, ops);
    const GroupScale g = group_scale(rule, rule.dynamic() ? statistics : &held);
    int8_t* codes = reinterpret_cast<int8_t*>(out);
    std::byte* tail = out + int8_scales_at(groups);
    const float scale = g.rounding.scale * g.last;
    std::memcpy(tail, &scale, 4);
    std::memcpy(tail + 4, &g.rounding.zero, 4);
    int32_t* sums = reinterpret_cast<int32_t*>(tail + 8);
    if (!g.rounds()) {
        std::memset(codes, 0, static_cast<size_t>(groups.padded));
        std::fill_n(sums, groups.runs.size(), 0);
        return;
    }
    int64_t column = 0;
    for (const Run& run : groups.runs) {
        const int64_t n = run.columns, padded = round_up(n, kRunGranule);
        const int32_t* order = groups.order.empty() ? nullptr : groups.order.data() + column;
        *sums++ = code_run(g, order ? x : x + column, n, order, ops, codes);
        std::fill_n(codes + n, padded - n, int8_t{0});
        codes += padded;
        column += n;
    }
}

}  // namespace conclave::quant
