// Random weights of the grouped family, rows of its input, and op.h's definition of its results.
#pragma once
#include <gtest/gtest.h>

#include <cmath>

#include "quant/activation.h"
#include "quant/dequantize.h"
#include "runtime/base/serial_executor.h"
#include "tests/quant/multiply.h"

namespace conclave::quant::test {

/// What an E4M3 code stands for; `top`: what 0x7f does.
inline float e4m3(int64_t code, float top) {
    const int exponent = static_cast<int>(code >> 3 & 15);
    const auto mantissa = static_cast<float>(code & 7);
    float v = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    if ((code & 127) == 127) v = top;
    return code & 128 ? -v : v;
}

/// Levels that are whole steps (up to 127 of them), or not.
inline std::shared_ptr<const Codebook> random_codebook(bool steps, Random& random) {
    if (steps && random.in(0, 1) == 0) return fp4_codebook();
    std::array<float, 16> levels;
    for (float& v : levels)
        v = steps ? static_cast<float>(random.in(-127, 127)) / 8 : random.normal();
    if (steps) levels[3] = 127.0f / 8, levels[5] = -0.0f;
    return make_codebook(steps ? "steps" : "odd", levels);
}

/// Groups of k columns, of any kind.
inline Grouping random_grouping(int64_t k, Random& random) {
    constexpr int64_t kWidths[] = {8, 16, 32, 64, 128, 5, 37, 0};
    const int64_t width = random.in(0, 9);
    if (width < 8) {
        const int64_t phase = random.in(0, 2) * random.in(0, 200);
        return uniform_grouping({phase, phase + k}, kWidths[width]);
    }
    std::vector<int32_t> group_of(static_cast<size_t>(k));
    const int64_t groups = random.in(1, k / 20 + 2);
    for (int32_t& g : group_of) g = static_cast<int32_t>(3 + random.in(0, groups));
    return permuted_grouping(group_of);
}

/// A matrix in model format with gaps between its rows, codes ending at a guard page.
struct Matrix {
    Matrix(const Kernel& kernel, int64_t rows, Grouping grouping, Random& random)
        : n(rows),
          k(grouping.columns),
          row_bytes(k + random.in(0, 5)),
          most((1 << code_bits(kernel.code)) - 1),
          codes(static_cast<size_t>((n - 1) * row_bytes + k)) {
        layout = {k, random_encoding(kernel, random), {}};
        layout.encoding.permuted = !grouping.order.empty();
        if (random.in(0, 1) == 0)
            (random.in(0, 1) == 0 ? layout.global.multiplier : layout.global.divisor) =
                std::fabs(random.normal()) + 0.01f;
        // No NaN.
        const bool e4m3 = kernel.code == CodeType::kE4M3;
        for (int64_t j = 0; j < n; ++j)
            for (int64_t i = 0; i < k; ++i) {
                const int64_t c = random.in(0, most);
                set(j, i, e4m3 && (c & 127) == 127 ? c - 1 : c);
            }
        first_group = most;
        for (const Run& run : grouping.runs) {
            first_group = std::min<int64_t>(first_group, run.group);
            stride = std::max<int64_t>(stride, run.group + 1);
        }
        stride += random.in(0, 2) - first_group;
        scales.resize(static_cast<size_t>(n * stride), std::nanf(""));
        zeros.resize(scales.size(), std::nanf(""));
        if (layout.encoding.super > 0) fill_super(grouping, random);
        for (int64_t j = 0; j < n && layout.encoding.super == 0; ++j)
            for (const Run& run : grouping.runs) {
                scales[at(j, run)] = random_factor(layout.encoding.scale, 0, 0.1f, random);
                zeros[at(j, run)] = random_factor(
                    layout.encoding.zero,
                    layout.encoding.zero_added ? 0 : static_cast<float>(most / 2), 1, random);
            }
        layout.groups = std::make_shared<Grouping>(std::move(grouping));
    }
    void set(int64_t j, int64_t i, int64_t code) {
        codes.data()[j * row_bytes + i] = static_cast<std::byte>(code);
    }
    int64_t code(int64_t j, int64_t i) const {
        return static_cast<int64_t>(codes.data()[j * row_bytes + i]);
    }
    /// What the code stands for before zero and scale.
    float value(int64_t j, int64_t i) const {
        const int64_t c = code(j, i);
        switch (layout.encoding.code) {
            case CodeType::kT4:
                return layout.encoding.levels->levels[c];
            case CodeType::kE4M3:
                return e4m3(c, std::nanf(""));
            case CodeType::kE4M3N:
                return e4m3(c, 480);
            default:
                return static_cast<float>(c);
        }
    }
    /// With the global one.
    float scale(int64_t j, const Run& run) const { return layout.global.of(scales[at(j, run)]); }
    /// What is subtracted.
    float zero(int64_t j, const Run& run) const {
        const Encoding& e = layout.encoding;
        return e.zero == FactorType::kNone || e.zero_added ? static_cast<float>(e.zero_point)
                                                           : zeros[at(j, run)];
    }
    float added(int64_t j, const Run& run) const {
        return layout.encoding.zero_added ? zeros[at(j, run)] : 0;
    }
    CodeTile tile(int64_t row0, int64_t rows) const {
        CodeTile t;
        t.codes = codes.data() + row0 * row_bytes;
        t.row_bytes = row_bytes, t.rows = rows, t.cols = k;
        t.scales = scales.data() + row0 * stride;
        if (layout.encoding.zero != FactorType::kNone) t.zeros = zeros.data() + row0 * stride;
        t.factor_stride = stride, t.first_group = first_group;
        if (layout.encoding.super == 0) return t;
        t.super_scales = super_scales.data() + row0 * super_stride;
        if (t.zeros) t.super_zeros = super_zeros.data() + row0 * super_stride;
        t.super_stride = super_stride, t.first_super = first_group / layout.encoding.super;
        return t;
    }
    std::string name() const {
        std::string s = layout.encoding.to_string() + " k " + std::to_string(k) + " scales " +
                        std::to_string(static_cast<int>(layout.encoding.scale)) + " zeros " +
                        std::to_string(static_cast<int>(layout.encoding.zero)) +
                        (layout.encoding.zero_added ? " added" : "") + " runs";
        for (const Run& run : layout.groups->runs) s += " " + std::to_string(run.columns);
        return s + (layout.groups->order.empty() ? "" : " permuted");
    }

    int64_t n, k, row_bytes, most, stride = 0, first_group = 0, super_stride = 0;
    GuardedBytes codes;
    std::vector<float> scales, zeros, super_scales, super_zeros;
    MatrixLayout layout;

  private:
    int64_t at(int64_t j, const Run& run) const { return j * stride + run.group - first_group; }

    void fill_super(const Grouping& grouping, Random& random) {
        const int super = layout.encoding.super;
        const int64_t first = first_group / super;
        super_stride = (first_group + stride) / super + 1 - first + random.in(0, 2);
        for (int64_t i = 0; i < n * super_stride; ++i) {
            super_scales.push_back(random_factor(FactorType::kF16, 0, 0.01f, random));
            super_zeros.push_back(random_factor(FactorType::kF16, 0, 0.05f, random));
            if (random.in(0, 20) == 0) super_scales.back() = super_zeros.back() = 0;
        }
        for (int64_t j = 0; j < n; ++j)
            for (const Run& run : grouping.runs) {
                const auto s = static_cast<size_t>(j * super_stride + run.group / super - first);
                scales[at(j, run)] = super_scales[s] * static_cast<float>(random.in(-128, 127));
                zeros[at(j, run)] = -(super_zeros[s] * static_cast<float>(random.in(0, 255)));
            }
    }

    static Encoding random_encoding(const Kernel& kernel, Random& random) {
        constexpr FactorType kScales[] = {FactorType::kF16, FactorType::kBF16, FactorType::kF32,
                                          FactorType::kE4M3, FactorType::kE8M0};
        constexpr FactorType kZeros[] = {FactorType::kNone, FactorType::kNone, FactorType::kU8,
                                         FactorType::kU8,   FactorType::kF16,  FactorType::kBF16,
                                         FactorType::kF32};
        Encoding e;
        e.code = kernel.code;
        e.bits = code_bits(kernel.code);
        e.scale = kScales[random.in(0, 4)];
        if (is_integer(e.code)) {
            e.zero = kZeros[random.in(0, kernel.x == XType::kI8Row ? 3 : 6)];
            e.zero_added =
                e.zero != FactorType::kNone && e.zero != FactorType::kU8 && random.in(0, 1) == 0;
            e.zero_point = static_cast<int>(random.in(0, (1 << e.bits) - 1));
        }
        if (e.code == CodeType::kT4)
            e.levels = random_codebook(kernel.x != XType::kF32 || random.in(0, 1) == 0, random);
        if (kernel.super && random.in(0, 3) == 0) {
            e.super = 1 << random.in(0, 4);
            e.scale = FactorType::kI8;
            e.zero_added = is_integer(e.code) && kernel.x != XType::kI8Row && random.in(0, 1) == 0;
            e.zero = e.zero_added ? FactorType::kU8 : FactorType::kNone;
        }
        return e;
    }
    /// What the type can hold.
    static float random_factor(FactorType type, float mean, float width, Random& random) {
        const float v = mean + width * random.normal();
        switch (type) {
            case FactorType::kF16:
                return f16_to_f32(f32_to_f16(v));
            case FactorType::kBF16:
                return bf16_to_f32(f32_to_bf16(v));
            case FactorType::kU8:
                return static_cast<float>(random.in(0, static_cast<int64_t>(2 * mean)));
            case FactorType::kE4M3: {
                const int64_t c = random.in(0, 255);
                return e4m3((c & 127) == 127 ? 0 : c, 0);
            }
            case FactorType::kE8M0:
                return std::ldexp(1.0f, static_cast<int>(random.in(-12, 4)));
            default:
                return v;
        }
    }
};

/// Ends at a guard page.
inline GuardedBytes pack_all(const Kernel& kernel, const Matrix& w) {
    GuardedBytes packed(kernel.packed_bytes(w.n, w.layout));
    kernel.pack(packed.data(), w.n, w.layout, 0, w.tile(0, w.n));
    return packed;
}

inline int64_t column(const Grouping& g, int64_t c) {
    return g.order.empty() ? c : g.order[static_cast<size_t>(c)];
}

/// Rows of x in the form that a kernel reads, each ending at a guard page.
struct Rows {
    Rows(const Kernel& kernel, const Matrix& w, int64_t count, const std::vector<float>& x) {
        const Grouping& groups = *w.layout.groups;
        if (kernel.x == XType::kI8Row) {
            for (int64_t r = 0; r < count; ++r)
                whole_row(groups, &x[static_cast<size_t>(r * w.k)], r % 3 == 1);
            return;
        }
        SerialExecutor serial;
        Workspace workspace;
        const VectorOps& ops = vector_ops(detect_cpu());
        PreparedInput input(x.data(), w.k, count, w.k, ops, serial, workspace);
        const bool int8 = kernel.x == XType::kI8;
        const void* const* form = input.form(int8 ? kInt8Input : kF32Input, kernel.x, w.layout);
        const int64_t bytes = int8 ? int8_row_bytes(groups) : w.k * 4;
        for (int64_t r = 0; r < count; ++r) {
            memory.emplace_back(static_cast<size_t>(bytes));
            std::memcpy(memory.back().data(), form[r], static_cast<size_t>(bytes));
            pointers.push_back(memory.back().data());
        }
    }
    /// Adds a row with one scale, and a zero where `asymmetric` (or `shift`, which moves both).
    void whole_row(const Grouping& groups, const float* x, bool asymmetric, float shift = 0) {
        const auto k = static_cast<size_t>(groups.columns);
        float lo = 0, hi = 0, bad = 0;
        for (size_t i = 0; i < k; ++i) {
            lo = std::min(lo, x[i]), hi = std::max(hi, x[i]);
            bad += x[i] - x[i];  // 0, or NaN
        }
        const float step = asymmetric ? (hi - lo) / 255 : std::max(hi, -lo) / 127;
        const float scale = std::max(step, 1e-30f);
        const float zero = asymmetric ? std::nearbyint(-128 - lo / scale) : 0;
        memory.emplace_back(static_cast<size_t>(int8_whole_row_bytes(groups)));
        std::byte* row = memory.back().data();
        const float head[2] = {scale + bad, zero + shift};
        std::memcpy(row + int8_scales_at(groups), head, sizeof head);
        auto* code = reinterpret_cast<int8_t*>(row);
        auto* sum = reinterpret_cast<int32_t*>(row + int8_scales_at(groups) + 8);
        int64_t c = 0;
        for (const Run& run : groups.runs) {
            *sum = 0;
            for (int64_t i = 0; i < run.columns; ++i, ++c) {
                const float q = std::nearbyint(x[column(groups, c)] / scale) + zero;
                const bool number = q >= -128 && q <= 127;
                code[i] = static_cast<int8_t>(number ? q : q > 0 ? 127 : -128);
                *sum += code[i];
            }
            for (int64_t i = run.columns; i < round_up(run.columns, kRunGranule); ++i) code[i] = 0;
            code += round_up(run.columns, kRunGranule);
            ++sum;
        }
        pointers.push_back(row);
    }
    std::vector<GuardedBytes> memory;
    std::vector<const void*> pointers;
};

/// One output as op.h defines it; its sum in double over the decoded weights, with the sum of all
/// magnitudes that roundings are relative to.
struct Output {
    float defined = 0;
    double sum = 0, magnitude = 0;
};

struct Definition {
    bool fused;
    float multiply_add(float a, float b, float c) const {
        return fused ? std::fma(a, b, c) : a * b + c;
    }

    /// `weights`: row j decoded.
    Output of(XType x, const Matrix& w, int64_t j, const std::vector<float>& weights,
              const std::byte* row) const {
        return x == XType::kF32  ? f32(w, j, weights, row)
               : x == XType::kI8 ? blocks(w, j, weights, row)
                                 : whole(w, j, weights, row);
    }

  private:
    Output blocks(const Matrix& w, int64_t j, const std::vector<float>& weights,
                  const std::byte* row) const {
        const Grouping& g = *w.layout.groups;
        const auto* x = reinterpret_cast<const int8_t*>(row);
        const auto* scales = reinterpret_cast<const float*>(row + int8_scales_at(g));
        const float* sums = scales + g.blocks.size();
        const Codebook* levels = w.layout.encoding.levels.get();
        int most = 0;
        for (int i = 0; levels && i < 16; ++i) most = std::max(most, std::abs(levels->steps[i]));
        Output out;
        int64_t c = 0;
        size_t b = 0;
        for (const Run& run : g.runs) {
            const float s = levels ? w.scale(j, run) * levels->step : w.scale(j, run);
            const float z = levels ? static_cast<float>(most) : w.zero(j, run);
            const float added = w.added(j, run);
            for (int64_t left = run.columns; left > 0; left -= kBlockColumns, ++b) {
                const int64_t count = std::min(left, kBlockColumns);
                EXPECT_EQ(g.blocks[b], count);
                int32_t d = 0, total = 0;
                double sum = 0, magnitude = 0;
                for (int64_t i = 0; i < count; ++i, ++c) {
                    const int64_t code = w.code(j, column(g, c));
                    const auto q = static_cast<int32_t>(levels ? levels->steps[code] + most : code);
                    d += q * x[i];
                    total += x[i];
                    sum += double{weights[column(g, c)]} * x[i];
                    // u's own rounding is of z * sum and d, which may cancel.
                    magnitude += (q + std::fabs(z)) * std::fabs(x[i]) * std::fabs(s);
                    magnitude += std::fabs(double{added} * x[i]);
                }
                EXPECT_EQ(sums[b], static_cast<float>(total));
                const float u = multiply_add(-z, sums[b], static_cast<float>(d));
                out.defined = multiply_add(u, s * scales[b], out.defined);
                if (w.layout.encoding.zero_added)
                    out.defined = multiply_add(added, scales[b] * sums[b], out.defined);
                out.sum += sum * scales[b];
                out.magnitude += magnitude * scales[b];
                x += round_up(count, kRunGranule);
            }
        }
        return out;
    }

    Output whole(const Matrix& w, int64_t j, const std::vector<float>& weights,
                 const std::byte* row) const {
        const Grouping& g = *w.layout.groups;
        const auto* x = reinterpret_cast<const int8_t*>(row);
        float head[2];
        std::memcpy(head, row + int8_scales_at(g), sizeof head);
        Output out;
        int64_t c = 0;
        for (const Run& run : g.runs) {
            const float s = w.scale(j, run);
            const auto z = static_cast<int64_t>(w.zero(j, run));
            int64_t d = 0, t = 0;
            for (int64_t i = 0; i < run.columns; ++i, ++c) {
                const int64_t q = w.code(j, column(g, c)) - z;
                d += q * x[i];
                t += q;
                out.sum += double{weights[column(g, c)]} * (double{head[0]} * (x[i] - head[1]));
                out.magnitude += std::fabs(static_cast<double>(q) * s * head[0]) *
                                 (std::fabs(x[i]) + std::fabs(head[1]));
            }
            const float u = multiply_add(-head[1], static_cast<float>(t), static_cast<float>(d));
            out.defined = multiply_add(u, s * head[0], out.defined);
            x += round_up(run.columns, kRunGranule);
        }
        return out;
    }

    Output f32(const Matrix& w, int64_t j, const std::vector<float>& weights,
               const std::byte* row) const {
        const Grouping& g = *w.layout.groups;
        const auto* x = reinterpret_cast<const float*>(row);
        const bool adds = w.layout.encoding.zero_added;
        Output out;
        int64_t c = 0;
        for (const Run& run : g.runs) {
            const float s = w.scale(j, run), z = w.zero(j, run), added = w.added(j, run);
            float chains[4] = {};
            for (int64_t i = 0; i < run.columns; ++i, ++c) {
                const float v = w.value(j, column(g, c)) - z;
                chains[i % 4] =
                    multiply_add(adds ? multiply_add(v, s, added) : v, x[c], chains[i % 4]);
                out.sum += double{weights[column(g, c)]} * x[c];
                out.magnitude += (std::fabs(double{v} * s) + std::fabs(added)) * std::fabs(x[c]);
            }
            const float t = (chains[0] + chains[1]) + (chains[2] + chains[3]);
            out.defined = adds ? t + out.defined : multiply_add(t, s, out.defined);
        }
        return out;
    }
};

}  // namespace conclave::quant::test
