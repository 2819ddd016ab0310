// Rows quantized slice by slice, as ranks that hold parts of them do it.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "quant/quantize_row.h"
#include "tests/quant/support.h"

namespace conclave::quant::test {

/// Up to `most` floats at a time that end at a guard page.
class GuardedFloats {
  public:
    explicit GuardedFloats(int64_t most)
        : memory_(static_cast<size_t>(most) * sizeof(float)), most_(most) {}
    float* poisoned(int64_t n) {
        float* first = memory_.as<float>() + most_ - n;
        std::fill_n(first, n, kPoison);
        return first;
    }
    float* copy(const std::vector<float>& x, int64_t begin, int64_t end) {
        return std::copy(x.begin() + begin, x.begin() + end, poisoned(end - begin)) - (end - begin);
    }

  private:
    GuardedBytes memory_;
    int64_t most_;
};

inline bool takes_int8_row(const ActivationRule& rule) {
    return rule.code == ActivationCode::kInt8 && rule.scale_rule != ScaleRule::kBlocks &&
           !(rule.outlier > 0);
}

/// == with all NaNs alike; the last bit is free where the int8 form has one scale for two products.
inline bool same_int8(const ActivationRule& rule, float a, float b) {
    if (a == b || (std::isnan(a) && std::isnan(b))) return true;
    return rule.scale_rule == ScaleRule::kAmaxTimes && std::fabs(a - b) <= std::fabs(b) * 0x1p-22f;
}

/// Where slices begin, and the end: whole; shares of 2, 3, 5, 8 ranks in granules of 32 columns;
/// cut anywhere.
inline std::vector<std::vector<int64_t>> row_cuts(int64_t width, Random& random) {
    std::vector<std::vector<int64_t>> all = {{0, width}};
    for (int ranks : {2, 3, 5, 8}) {
        std::vector<int64_t> shares = {0}, anywhere = {0, width};
        for (int r = 0; r < ranks; ++r) shares.push_back(split(width, 32, ranks, r).end);
        for (int r = 1; r < ranks; ++r) anywhere.push_back(random.in(0, width));
        std::sort(anywhere.begin(), anywhere.end());
        all.push_back(shares);
        all.push_back(anywhere);
    }
    return all;
}

/// Bytes of an int8 row, 64-byte aligned and poisoned.
inline AlignedBytes int8_row(const ActivationRule& rule, const float* x, const RowSpan& span,
                             const float* statistics, const Grouping& groups,
                             const VectorOps& ops) {
    AlignedBytes bytes(static_cast<size_t>(int8_whole_row_bytes(groups)));
    quantize_int8_row(rule, x, span, statistics, groups, ops, bytes.data());
    return bytes;
}

struct Int8Factors {
    float scale, zero;
};
inline Int8Factors int8_factors(const AlignedBytes& row, const Grouping& groups) {
    Int8Factors f;
    std::memcpy(&f, row.data() + int8_scales_at(groups), sizeof f);
    return f;
}

struct Sliced {
    std::vector<float> row;   ///< fake-quantized
    std::vector<float> int8;  ///< what the int8 form stands for
    std::vector<int> codes;
};

inline std::vector<float> combined_statistics(const ActivationRule& rule,
                                              const std::vector<float>& x,
                                              const std::vector<int64_t>& cuts,
                                              const VectorOps& ops) {
    const auto width = static_cast<int64_t>(x.size());
    const auto count = static_cast<size_t>(statistics_per_row(rule, width));
    std::vector<float> all(count, -std::numeric_limits<float>::infinity());
    GuardedFloats memory(width);
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        std::vector<float> one(count + 1, kPoison);
        const float* slice = memory.copy(x, cuts[i], cuts[i + 1]);
        row_statistics(rule, slice, {{cuts[i], cuts[i + 1]}, width}, ops, one.data());
        EXPECT_EQ(bits(one[count]), bits(kPoison));
        for (size_t s = 0; s < count; ++s) {
            EXPECT_FALSE(std::isnan(one[s]));
            all[s] = std::max(all[s], one[s]);
        }
    }
    return all;
}

/// Slices [cuts[i], cuts[i + 1]) of x, each by itself but for the statistics. A static rule has
/// none: a number that is not finite is known to its slice alone, and so is told to all here.
inline Sliced quantize_slices(const ActivationRule& rule, const std::vector<float>& x,
                              const std::vector<int64_t>& cuts, const VectorOps& ops) {
    const auto width = static_cast<int64_t>(x.size());
    const std::vector<float> all = combined_statistics(rule, x, cuts, ops);
    const float* statistics = rule.dynamic() ? all.data() : nullptr;
    Sliced out;
    GuardedFloats inputs(width), outputs(width);
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        const RowSpan span{{cuts[i], cuts[i + 1]}, width};
        const int64_t n = span.columns.size();
        const float* slice = inputs.copy(x, cuts[i], cuts[i + 1]);
        float* y = outputs.poisoned(n);
        quantize_row(rule, slice, span, statistics, ops, y);
        out.row.insert(out.row.end(), y, y + n);
        std::vector<float> in_place(slice, slice + n);
        quantize_row(rule, in_place.data(), span, statistics, ops, in_place.data());
        for (int64_t c = 0; c < n; ++c) EXPECT_EQ(bits(in_place[c]), bits(y[c]));
        if (!takes_int8_row(rule)) continue;
        const Grouping groups = uniform_grouping(span.columns, 0);
        const AlignedBytes row = int8_row(rule, slice, span, statistics, groups, ops);
        const Int8Factors f = int8_factors(row, groups);
        for (int64_t c = 0; c < n; ++c) {
            const auto code = static_cast<int8_t>(row.data()[c]);
            out.codes.push_back(code);
            out.int8.push_back((static_cast<float>(code) - f.zero) * f.scale);
        }
    }
    if (rule.dynamic()) return out;
    for (std::vector<float>* y : {&out.row, &out.int8})
        if (std::any_of(y->begin(), y->end(), [](float v) { return std::isnan(v); }))
            y->assign(y->size(), std::numeric_limits<float>::quiet_NaN());
    return out;
}

/// The int8 form of a whole row under a grouping: `codes` in kernel order, padding, sums of runs.
inline void expect_int8_row(const ActivationRule& rule, const std::vector<float>& x,
                            const Grouping& groups, const std::vector<int>& codes,
                            const VectorOps& ops) {
    const auto width = static_cast<int64_t>(x.size());
    const auto statistics = combined_statistics(rule, x, {0, width}, ops);
    const AlignedBytes row = int8_row(rule, x.data(), {{0, width}, width},
                                      rule.dynamic() ? statistics.data() : nullptr, groups, ops);
    const bool finite = std::all_of(x.begin(), x.end(), [](float v) { return std::isfinite(v); });
    const Int8Factors f = int8_factors(row, groups);
    EXPECT_EQ(std::isnan(f.scale), !finite);
    EXPECT_EQ(f.zero, std::nearbyint(f.zero));
    int64_t column = 0, at = 0;
    for (size_t r = 0; r < groups.runs.size(); ++r) {
        const int64_t n = groups.runs[r].columns;
        int32_t sum = 0, stored = 0;
        for (int64_t i = 0; i < round_up(n, kRunGranule); ++i, ++at) {
            int want = 0;
            if (i < n) {
                const size_t c = static_cast<size_t>(column++);
                want = codes[groups.order.empty() ? c : static_cast<size_t>(groups.order[c])];
            }
            ASSERT_EQ(static_cast<int>(static_cast<int8_t>(row.data()[at])), want) << at;
            sum += want;
        }
        std::memcpy(&stored, row.data() + int8_scales_at(groups) + 8 + r * 4, 4);
        EXPECT_EQ(stored, sum) << "run " << r;
    }
    EXPECT_EQ(column, width);
}

}  // namespace conclave::quant::test
