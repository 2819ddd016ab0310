// Every kernel of integer weights: against op.h number by number, against sums in double, and
// against itself; with the int8 input that feeds it.
#include <gtest/gtest.h>

#include <cmath>

#include "quant/activation.h"
#include "tests/quant/multiply.h"

namespace conclave::quant::test {
namespace {

class Serial final : public Executor {
  public:
    int nodes() const override { return 1; }
    int threads(int) const override { return 1; }
    int threads() const override { return 1; }
    void parallel_for(std::span<const int64_t> tasks,
                      FunctionRef<void(int, int64_t)> task) override {
        for (int64_t i = 0; i < tasks[0]; ++i) task(0, i);
    }
    void parallel_for(int64_t tasks, FunctionRef<void(int64_t)> task) override {
        for (int64_t i = 0; i < tasks; ++i) task(i);
    }
    std::byte* scratch(size_t) override { return nullptr; }
};

/// Exactly what a factor of this type can hold.
float rounded(FactorType type, float v) {
    switch (type) {
        case FactorType::kF16:
            return f16_to_f32(f32_to_f16(v));
        case FactorType::kBF16:
            return bf16_to_f32(f32_to_bf16(v));
        case FactorType::kU8:
            return std::round(std::fabs(v));
        default:
            return v;
    }
}

constexpr FactorType kScales[] = {FactorType::kF16, FactorType::kBF16, FactorType::kF32};
constexpr FactorType kZeros[] = {FactorType::kNone, FactorType::kNone, FactorType::kU8,
                                 FactorType::kU8,   FactorType::kF16,  FactorType::kBF16,
                                 FactorType::kF32};

/// Groups of k columns, of any kind.
Grouping random_grouping(int64_t k, Random& random) {
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
    Matrix(CodeType code, int64_t rows, Grouping grouping, Random& random)
        : n(rows),
          k(grouping.columns),
          row_bytes(k + random.in(0, 5)),
          codes(static_cast<size_t>((n - 1) * row_bytes + k)) {
        Encoding e;
        e.code = code;
        e.bits = code_bits(code);
        e.scale = kScales[random.in(0, 2)];
        e.zero = kZeros[random.in(0, 6)];
        e.zero_point = static_cast<int>(random.in(0, (1 << e.bits) - 1));
        e.permuted = !grouping.order.empty();
        const int64_t most = (1 << e.bits) - 1;
        for (int64_t j = 0; j < n; ++j)
            for (int64_t i = 0; i < k; ++i) set(j, i, random.in(0, most));
        first_group = most;
        for (const Run& run : grouping.runs) {
            first_group = std::min<int64_t>(first_group, run.group);
            stride = std::max<int64_t>(stride, run.group + 1);
        }
        stride += random.in(0, 2) - first_group;
        scales.resize(static_cast<size_t>(n * stride), std::nanf(""));
        zeros.resize(scales.size(), std::nanf(""));
        for (int64_t j = 0; j < n; ++j)
            for (const Run& run : grouping.runs) {
                const int64_t at = j * stride + run.group - first_group;
                scales[at] = rounded(e.scale, random.normal() * 0.1f);
                zeros[at] = e.zero == FactorType::kU8
                                ? static_cast<float>(random.in(0, most))
                                : rounded(e.zero, static_cast<float>(most / 2) + random.normal());
            }
        layout = {k, e, std::make_shared<Grouping>(std::move(grouping))};
    }
    void set(int64_t j, int64_t i, int64_t code) {
        codes.data()[j * row_bytes + i] = static_cast<std::byte>(code);
    }
    float code(int64_t j, int64_t i) const {
        return static_cast<float>(codes.data()[j * row_bytes + i]);
    }
    float scale(int64_t j, const Run& run) const {
        return scales[j * stride + run.group - first_group];
    }
    float zero(int64_t j, const Run& run) const {
        return layout.encoding.zero == FactorType::kNone
                   ? static_cast<float>(layout.encoding.zero_point)
                   : zeros[j * stride + run.group - first_group];
    }
    CodeTile tile(int64_t row0, int64_t rows) const {
        CodeTile t;
        t.codes = codes.data() + row0 * row_bytes;
        t.row_bytes = row_bytes, t.rows = rows, t.cols = k;
        t.scales = scales.data() + row0 * stride;
        if (layout.encoding.zero != FactorType::kNone) t.zeros = zeros.data() + row0 * stride;
        t.factor_stride = stride, t.first_group = first_group;
        return t;
    }
    std::string name() const {
        std::string s = layout.encoding.to_string() + " k " + std::to_string(k) + " runs";
        for (const Run& run : layout.groups->runs) s += " " + std::to_string(run.columns);
        return s + (layout.groups->order.empty() ? "" : " permuted");
    }

    int64_t n, k, row_bytes, stride = 0, first_group = 0;
    GuardedBytes codes;
    std::vector<float> scales, zeros;
    MatrixLayout layout;
};

/// Ends at a guard page.
GuardedBytes pack_all(const Kernel& kernel, const Matrix& w) {
    GuardedBytes packed(kernel.packed_bytes(w.n, w.layout));
    kernel.pack(packed.data(), w.n, w.layout, 0, w.tile(0, w.n));
    return packed;
}

/// Rows of x in the form that a kernel reads, each ending at a guard page.
struct Rows {
    Rows(const Kernel& kernel, const Matrix& w, int64_t count, const std::vector<float>& x) {
        Serial serial;
        Workspace workspace;
        const VectorOps& ops = vector_ops(detect_cpu());
        PreparedInput input(x.data(), w.k, count, w.k, ops, serial, workspace);
        const bool int8 = kernel.x == XType::kI8;
        const void* const* form = input.form(int8 ? kInt8Input : kF32Input, kernel.x, w.layout);
        const int64_t bytes = int8 ? int8_row_bytes(*w.layout.groups) : w.k * 4;
        for (int64_t r = 0; r < count; ++r) {
            memory.emplace_back(static_cast<size_t>(bytes));
            std::memcpy(memory.back().data(), form[r], static_cast<size_t>(bytes));
            pointers.push_back(memory.back().data());
        }
    }
    std::vector<GuardedBytes> memory;
    std::vector<const void*> pointers;
};

int64_t column(const Grouping& g, int64_t c) { return g.order.empty() ? c : g.order[c]; }

/// One output as op.h defines it, and its sum in double with the sum of all magnitudes.
struct Output {
    float defined = 0;
    double sum = 0, magnitude = 0;
};

struct Definition {
    bool fused;
    float multiply_add(float a, float b, float c) const {
        return fused ? std::fma(a, b, c) : a * b + c;
    }

    Output int8(const Matrix& w, int64_t j, const std::byte* row) const {
        const Grouping& g = *w.layout.groups;
        const auto* x = reinterpret_cast<const int8_t*>(row);
        const auto* scales = reinterpret_cast<const float*>(row + int8_scales_at(g));
        const float* sums = scales + g.blocks.size();
        Output out;
        int64_t c = 0;
        size_t b = 0;
        for (const Run& run : g.runs) {
            const float s = w.scale(j, run), z = w.zero(j, run);
            for (int64_t left = run.columns; left > 0; left -= kBlockColumns, ++b) {
                const int64_t count = std::min(left, kBlockColumns);
                EXPECT_EQ(g.blocks[b], count);
                int32_t d = 0, total = 0;
                double magnitude = 0;
                for (int64_t i = 0; i < count; ++i, ++c) {
                    const float q = w.code(j, column(g, c));
                    d += static_cast<int32_t>(q) * x[i];
                    total += x[i];
                    magnitude += std::fabs((double{q} - z) * x[i]);
                }
                EXPECT_EQ(sums[b], static_cast<float>(total));
                const float u = multiply_add(-z, sums[b], static_cast<float>(d));
                out.defined = multiply_add(u, s * scales[b], out.defined);
                out.sum += (d - double{z} * sums[b]) * s * scales[b];
                // u's own rounding is of z * sum and d, which may cancel.
                magnitude += std::fabs(d) + std::fabs(z * sums[b]);
                out.magnitude += magnitude * std::fabs(double{s} * scales[b]);
                x += round_up(count, kRunGranule);
            }
        }
        return out;
    }

    Output f32(const Matrix& w, int64_t j, const std::byte* row) const {
        const Grouping& g = *w.layout.groups;
        const auto* x = reinterpret_cast<const float*>(row);
        Output out;
        int64_t c = 0;
        for (const Run& run : g.runs) {
            const float s = w.scale(j, run), z = w.zero(j, run);
            float chains[4] = {};
            for (int64_t i = 0; i < run.columns; ++i, ++c) {
                const float q = w.code(j, column(g, c));
                chains[i % 4] = multiply_add(q - z, x[c], chains[i % 4]);
                out.sum += (double{q} - z) * s * x[c];
                out.magnitude += std::fabs((double{q} - z) * s * x[c]);
            }
            const float t = (chains[0] + chains[1]) + (chains[2] + chains[3]);
            out.defined = multiply_add(t, s, out.defined);
        }
        return out;
    }
};

class Grouped : public testing::TestWithParam<const Kernel*> {
  protected:
    void SetUp() override {
        if (!detect_cpu().has(kernel.isa))
            GTEST_SKIP() << "this CPU has no " << isa_name(kernel.isa);
    }
    Output expected(const Matrix& w, int64_t j, const void* row) const {
        const Definition definition{kernel.isa != Isa::kGeneric};
        const auto* bytes = static_cast<const std::byte*>(row);
        return kernel.x == XType::kI8 ? definition.int8(w, j, bytes) : definition.f32(w, j, bytes);
    }
    void compare(const Matrix& w, const Rows& x, int64_t rows, int64_t n0, int64_t n1,
                 int64_t gap) {
        const GuardedBytes packed = pack_all(kernel, w);
        const auto out =
            multiply(kernel, packed.data(), w.n, w.layout, x.pointers.data(), rows, n0, n1, gap);
        ASSERT_EQ(static_cast<int64_t>(out.size()), rows * (n1 - n0));
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t j = n0; j < n1; ++j) {
                const Output want = expected(w, j, x.pointers[r]);
                const float got = out[r * (n1 - n0) + j - n0];
                ASSERT_EQ(bits(got), bits(want.defined))
                    << got << " for " << want.defined << ", " << w.name() << " row " << r << " of "
                    << rows << ", column " << j;
                // Each term passes at most k + 8 roundings of 2^-24.
                const double bound = 0x1p-24 * static_cast<double>(w.k + 8) * want.magnitude;
                ASSERT_NEAR(got, want.sum, bound) << w.name();
            }
    }
    const Kernel& kernel = *GetParam();
};

TEST_P(Grouped, IsItsDefinitionBitForBit) {
    Random random(1);
    for (int round = 0; round < 120; ++round) {
        const int64_t n = random.in(1, 50), k = random.in(1, round % 8 == 7 ? 1100 : 300);
        const int64_t rows = round % 10 == 9 ? random.in(18, 40) : random.in(1, 17);
        const Matrix w(kernel.code, n, random_grouping(k, random), random);
        const Rows x(kernel, w, rows, random.normals(rows * k));
        const int64_t n0 = random.in(0, n), n1 = random.in(n0, n);
        compare(w, x, rows, n0, n1, round % 3);
        if (HasFatalFailure()) return;
    }
}

TEST_P(Grouped, TheLargestCodesDoNotOverflow) {
    Random random(2);
    const int64_t n = 17, most = (1 << code_bits(kernel.code)) - 1;
    for (int64_t k : {32, 77, 256}) {
        Matrix w(kernel.code, n, uniform_grouping({0, k}, 0), random);
        for (int64_t j = 0; j < n; ++j)
            for (int64_t i = 0; i < k; ++i) w.set(j, i, most);
        std::vector<float> values(static_cast<size_t>(2 * k), 1.0f);
        for (int64_t i = 0; i < k; ++i) values[i] = -1;
        compare(w, Rows(kernel, w, 2, values), 2, 0, n, 0);
        if (HasFatalFailure()) return;
    }
}

TEST_P(Grouped, EachElementIsTheSameInEveryBatchAndColumnRange) {
    ASSERT_TRUE(kernel.consistent);
    Random random(3);
    for (int64_t k : {1, 7, 64, 131, 259}) {
        const int64_t n = random.in(33, 70), most = 37;
        const Matrix w(kernel.code, n, random_grouping(k, random), random);
        const Rows x(kernel, w, most, random.normals(most * k));
        const GuardedBytes packed = pack_all(kernel, w);
        std::vector<float> alone;
        for (int64_t r = 0; r < most; ++r) {
            const auto row = multiply(kernel, packed.data(), n, w.layout, &x.pointers[r], 1, 0, n);
            alone.insert(alone.end(), row.begin(), row.end());
        }
        for (int64_t rows = 1; rows <= most; ++rows) {
            const int64_t first = random.in(0, most - rows);
            int64_t n0 = 0;
            while (n0 < n) {  // a random split of the columns
                const int64_t n1 = rows % 4 == 0 ? n : random.in(n0 + 1, n);
                const auto out = multiply(kernel, packed.data(), n, w.layout, &x.pointers[first],
                                          rows, n0, n1, rows % 2);
                for (int64_t r = 0; r < rows; ++r)
                    ASSERT_TRUE(same(&out[r * (n1 - n0)], &alone[(first + r) * n + n0], n1 - n0))
                        << w.name() << " rows " << rows << " columns " << n0 << " to " << n1;
                n0 = n1;
            }
        }
    }
}

TEST_P(Grouped, PackedBytesAreCodesAndFactorsWhateverTheTiles) {
    Random random(4);
    for (int round = 0; round < 40; ++round) {
        const int64_t n = random.in(1, 100), k = random.in(1, round % 4 == 0 ? 2500 : 300);
        const Matrix w(kernel.code, n, random_grouping(k, random), random);
        const Grouping& g = *w.layout.groups;
        const size_t size = kernel.packed_bytes(n, w.layout);
        const int64_t runs = static_cast<int64_t>(g.runs.size());
        const FactorType zero = w.layout.encoding.zero;
        // Integer zeros have as many bits as the codes.
        const int64_t zero_bits =
            zero == FactorType::kU8 ? code_bits(kernel.code) : 8 * factor_bytes(zero);
        const int64_t row_bits = g.padded * code_bits(kernel.code) +
                                 runs * (8 * factor_bytes(w.layout.encoding.scale) + zero_bits);
        ASSERT_EQ(static_cast<int64_t>(size), round_up(n, 16) * row_bits / 8);

        const GuardedBytes whole = pack_all(kernel, w);
        GuardedBytes zeros(size);
        std::memset(zeros.data(), 0, size);
        kernel.pack(zeros.data(), n, w.layout, 0, w.tile(0, n));
        ASSERT_EQ(std::memcmp(zeros.data(), whole.data(), size), 0) << "bytes left as is";

        std::vector<int64_t> cuts{0};
        while (cuts.back() < n)
            cuts.push_back(std::min(n, cuts.back() + kernel.row_block * random.in(1, 3)));
        GuardedBytes tiled(size);
        for (size_t i = cuts.size() - 1; i > 0; --i)
            kernel.pack(tiled.data(), n, w.layout, cuts[i - 1],
                        w.tile(cuts[i - 1], cuts[i] - cuts[i - 1]));
        ASSERT_EQ(std::memcmp(tiled.data(), whole.data(), size), 0) << w.name();
    }
}

TEST_P(Grouped, ARowWithNanOrInfinityLeavesTheOthersAlone) {
    Random random(5);
    const int64_t n = 35, k = 133;
    for (int64_t rows : {2, 5, 8, 9, 30}) {
        const Matrix w(kernel.code, n, random_grouping(k, random), random);
        const GuardedBytes packed = pack_all(kernel, w);
        auto values = random.normals(rows * k);
        const auto product = [&] {
            const Rows x(kernel, w, rows, values);
            return multiply(kernel, packed.data(), n, w.layout, x.pointers.data(), rows, 0, n);
        };
        const auto before = product();
        const int64_t bad = random.in(0, rows - 1);
        for (float value :
             {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
            values[bad * k + random.in(0, k - 1)] = value;
            const auto after = product();
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t j = 0; j < n; ++j) {
                    if (r != bad)
                        ASSERT_EQ(bits(after[r * n + j]), bits(before[r * n + j])) << w.name();
                    else
                        ASSERT_FALSE(std::isfinite(after[r * n + j])) << w.name();
                }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, Grouped, testing::ValuesIn(family("grouped")),
                         [](const auto& info) { return std::string(info.param->name); });

/// A row of int8 input is read back as what the rule makes of x.
TEST(Int8Input, RowsAreGatheredAndRoundedBlockByBlock) {
    Random random(6);
    Serial serial;
    Workspace workspace;
    const VectorOps& ops = vector_ops(detect_cpu());
    for (int round = 0; round < 60; ++round) {
        const int64_t k = random.in(1, 300), rows = random.in(1, 4), stride = k + random.in(0, 3);
        MatrixLayout layout;
        layout.k = k;
        layout.encoding.code = CodeType::kU4;
        layout.groups = std::make_shared<Grouping>(random_grouping(k, random));
        const Grouping& g = *layout.groups;
        auto x = random.normals(rows * stride);
        std::fill(x.begin(), x.begin() + k, 0.0f);  // a zero row
        const Workspace::Scope scope(workspace);
        PreparedInput input(x.data(), stride, rows, k, ops, serial, workspace);
        const void* const* form = input.form(kInt8Input, XType::kI8, layout);
        const std::vector<int32_t> some{static_cast<int32_t>(rows - 1), 0};
        const auto picked = input.form(kInt8Input, XType::kI8, layout, some);
        for (size_t i = 0; i < some.size(); ++i)
            ASSERT_EQ(std::memcmp(picked[i], form[some[i]], static_cast<size_t>(g.padded)), 0);
        for (int64_t r = 0; r < rows; ++r) {
            const auto* row = static_cast<const std::byte*>(form[r]);
            ASSERT_EQ(reinterpret_cast<uintptr_t>(row) % 64, 0u);
            const auto* codes = reinterpret_cast<const int8_t*>(row);
            const auto* scales = reinterpret_cast<const float*>(row + int8_scales_at(g));
            int64_t c = 0;
            for (size_t b = 0; b < g.blocks.size(); ++b) {
                float most = 0;
                for (int64_t i = 0; i < g.blocks[b]; ++i)
                    most = std::max(most, std::fabs(x[r * stride + column(g, c + i)]));
                ASSERT_EQ(scales[b], most / 127);
                float sum = 0;
                for (int64_t i = 0; i < g.blocks[b]; ++i, ++c) {
                    const float v = x[r * stride + column(g, c)];
                    // Half a step, and the rounding of factor and product.
                    ASSERT_NEAR(scales[b] * codes[i], v, scales[b] * 0.5001f);
                    sum += codes[i];
                }
                ASSERT_EQ(scales[g.blocks.size() + b], sum);
                const int64_t padded = round_up(g.blocks[b], kRunGranule);
                for (int64_t i = g.blocks[b]; i < padded; ++i) ASSERT_EQ(codes[i], 0);
                codes += padded;
            }
            ASSERT_EQ(c, k);
        }
    }
}

TEST(Int8Input, OneFormServesAllLayoutsOfTheSameBlocks) {
    Random random(7);
    Serial serial;
    Workspace workspace;
    const auto x = random.normals(512);
    PreparedInput input(x.data(), 512, 1, 512, vector_ops(detect_cpu()), serial, workspace);
    std::vector<MatrixLayout> kept;
    const auto form = [&](Grouping g) {
        MatrixLayout layout;
        layout.k = 512;
        layout.encoding.code = CodeType::kU8;
        layout.groups = std::make_shared<Grouping>(std::move(g));
        kept.push_back(layout);
        return input.form(kInt8Input, XType::kI8, kept.back());
    };
    const auto* g32 = form(uniform_grouping({0, 512}, 32));
    EXPECT_EQ(g32, form(uniform_grouping({0, 512}, 128)));
    EXPECT_EQ(g32, form(uniform_grouping({512, 1024}, 0)));
    EXPECT_NE(g32, form(uniform_grouping({16, 528}, 128)));
}

}  // namespace
}  // namespace conclave::quant::test
