// Every kernel of weights with scales: against op.h number by number, against sums in double, and
// against itself; with the int8 input that feeds it.
#include <set>

#include "tests/quant/grouped_matrix.h"

namespace conclave::quant::test {
namespace {

class Grouped : public testing::TestWithParam<const Kernel*> {
  protected:
    void SetUp() override {
        if (!detect_cpu().has(kernel.isa))
            GTEST_SKIP() << "this CPU has no " << isa_name(kernel.isa);
    }
    void compare(const Matrix& w, const Rows& x, int64_t rows, int64_t n0, int64_t n1,
                 int64_t gap) {
        const GuardedBytes packed = pack_all(kernel, w);
        const auto out =
            multiply(kernel, packed.data(), w.n, w.layout, x.pointers.data(), rows, n0, n1, gap);
        ASSERT_EQ(static_cast<int64_t>(out.size()), rows * (n1 - n0));
        const Definition definition{kernel.isa != Isa::kGeneric};
        const RowDecoder decoder(w.layout);
        std::vector<float> weights(static_cast<size_t>(w.k));
        for (int64_t j = n0; j < n1; ++j) {
            decoder.decode(w.tile(j, 1), 0, weights.data());
            for (int64_t r = 0; r < rows; ++r) {
                const Output want = definition.of(kernel.x, w, j, weights,
                                                  static_cast<const std::byte*>(x.pointers[r]));
                const float got = out[r * (n1 - n0) + j - n0];
                ASSERT_EQ(bits(got), bits(want.defined))
                    << got << " for " << want.defined << ", " << w.name() << " row " << r << " of "
                    << rows << ", column " << j;
                // Each term passes at most k + 12 roundings of 2^-24.
                const double bound = 0x1p-24 * static_cast<double>(w.k + 12) * want.magnitude;
                ASSERT_NEAR(got, want.sum, bound) << w.name();
            }
        }
    }
    const Kernel& kernel = *GetParam();
};

TEST_P(Grouped, IsItsDefinitionBitForBit) {
    Random random(1);
    for (int round = 0; round < 120; ++round) {
        const int64_t n = random.in(1, 50), k = random.in(1, round % 8 == 7 ? 1100 : 300);
        const int64_t rows = round % 10 == 9 ? random.in(18, 40) : random.in(1, 17);
        const Matrix w(kernel, n, random_grouping(k, random), random);
        const Rows x(kernel, w, rows, random.normals(rows * k));
        const int64_t n0 = random.in(0, n), n1 = random.in(n0, n);
        compare(w, x, rows, n0, n1, round % 3);
        if (HasFatalFailure()) return;
    }
}

TEST_P(Grouped, TheLargestCodesDoNotOverflow) {
    Random random(2);
    const int64_t n = 17;
    for (int64_t k : {32, 77, 256, 40000}) {
        const int64_t most =
            kernel.code == CodeType::kE4M3 ? 126 : (1 << code_bits(kernel.code)) - 1;
        Matrix w(kernel, k == 40000 ? 2 : n, uniform_grouping({0, k}, 0), random);
        if (w.layout.encoding.zero == FactorType::kNone) w.layout.encoding.zero_point = 0;
        for (float& z : w.zeros)
            if (w.layout.encoding.zero == FactorType::kU8) z = 0;
        for (int64_t j = 0; j < w.n; ++j)
            for (int64_t i = 0; i < k; ++i) w.set(j, i, most);
        std::vector<float> values(static_cast<size_t>(2 * k), 1.0f);
        for (int64_t i = 0; i < k; ++i) values[i] = -1;
        Rows x(kernel, w, 2, values);
        int64_t rows = 2;
        if (kernel.x == XType::kI8Row) {  // the first, of -128s; and rows whose zeros are far away
            x.whole_row(*w.layout.groups, values.data(), false, 255000);
            x.whole_row(*w.layout.groups, values.data() + k, true, -255000);
            rows = 4;
            auto* row = x.memory[0].as<int8_t>();
            std::memset(row, -128, static_cast<size_t>(k));
            const auto sum = static_cast<int32_t>(-128 * k);
            std::memcpy(row + int8_scales_at(*w.layout.groups) + 8, &sum, 4);
        }
        compare(w, x, rows, 0, w.n, 0);
        if (HasFatalFailure()) return;
    }
}

TEST_P(Grouped, LongRunsAreSummedExactlyUnderAnyZero) {
    if (kernel.x != XType::kI8Row) return;
    Random random(8);
    for (int64_t k : {32768, 32769, 33001, 65536, 70009}) {
        const Matrix w(kernel, 3, uniform_grouping({0, k}, 0), random);
        compare(w, Rows(kernel, w, 3, random.normals(3 * k)), 3, 0, 3, 0);
        if (HasFatalFailure()) return;
    }
}

TEST_P(Grouped, EveryCodeIsItsNumber) {
    Random random(9);
    for (int round = 0; round < 4; ++round) {
        const int64_t k = 1 << code_bits(kernel.code);
        Matrix w(kernel, 16, uniform_grouping({0, k}, 0), random);
        for (int64_t i = 0; i < k; ++i)
            for (int64_t j = 0; j < 16; ++j) w.set(j, i, i);
        // One column at a time.
        std::vector<float> values(static_cast<size_t>(k * k), 0.0f);
        for (int64_t i = 0; i < k; ++i) values[static_cast<size_t>(i * k + i)] = 1;
        const Rows x(kernel, w, k, values);
        const GuardedBytes packed = pack_all(kernel, w);
        const auto out = multiply(kernel, packed.data(), 16, w.layout, x.pointers.data(), k, 0, 16);
        const RowDecoder decoder(w.layout);
        std::vector<float> weights(static_cast<size_t>(k));
        for (int64_t j = 0; j < 16; ++j) {
            decoder.decode(w.tile(j, 1), 0, weights.data());
            for (int64_t r = 0; r < k; ++r) {
                if (kernel.code == CodeType::kE4M3) {  // its NaNs are in every sum
                    ASSERT_TRUE(std::isnan(out[r * 16 + j]));
                    continue;
                }
                const float scale = w.scale(j, w.layout.groups->runs[0]);
                ASSERT_NEAR(out[r * 16 + j], weights[r],
                            1e-5 * (std::fabs(weights[r]) + 256 * std::fabs(scale)))
                    << w.name() << " code " << r;
            }
        }
    }
}

TEST_P(Grouped, ScalesKeepEveryBitPattern) {
    Random random(10);
    constexpr int64_t kGroups = 256, kWidth = 8, k = kGroups * kWidth;
    for (FactorType type : {FactorType::kE4M3, FactorType::kE8M0}) {
        Matrix w(kernel, 2, uniform_grouping({0, k}, kWidth), random);
        if (w.layout.encoding.super > 0)
            w.layout.encoding.zero = FactorType::kNone, w.layout.encoding.zero_added = false;
        w.layout.encoding.super = 0;
        w.layout.encoding.scale = type;
        w.layout.global = {};
        for (int64_t g = 0; g < kGroups; ++g) {
            const int bits = static_cast<int>(g);
            const float s = type == FactorType::kE4M3 ? e4m3(g, std::nanf(""))
                            : g == 255                ? std::nanf("")
                                                      : std::ldexp(1.0f, bits - 127);
            for (int64_t j = 0; j < 2; ++j) w.scales[static_cast<size_t>(j * w.stride + g)] = s;
        }
        const GuardedBytes packed = pack_all(kernel, w);
        for (int64_t g = 0; g < kGroups; ++g)
            for (int64_t j = 0; j < 2; ++j) {
                const auto code = static_cast<int64_t>(packed.data()[g * 16 + j]);
                if (type == FactorType::kE4M3 && g == 255)
                    ASSERT_EQ(code, 127);  // a NaN has no sign
                else
                    ASSERT_EQ(code, g);
            }
        // Without the NaNs and what overflows, as defined.
        for (float& s : w.scales)
            if (!(std::fabs(s) < 0x1p100f)) s = 1;
        compare(w, Rows(kernel, w, 2, random.normals(2 * k)), 2, 0, 2, 0);
        if (HasFatalFailure()) return;
    }
}

TEST_P(Grouped, EachElementIsTheSameInEveryBatchAndColumnRange) {
    ASSERT_TRUE(kernel.consistent);
    Random random(3);
    for (int64_t k : {1, 7, 64, 131, 259}) {
        const int64_t n = random.in(33, 70), most = 131;  // beyond two blocks of rows
        const Matrix w(kernel, n, random_grouping(k, random), random);
        const Rows x(kernel, w, most, random.normals(most * k));
        const GuardedBytes packed = pack_all(kernel, w);
        std::vector<float> alone;
        for (int64_t r = 0; r < most; ++r) {
            const auto row = multiply(kernel, packed.data(), n, w.layout, &x.pointers[r], 1, 0, n);
            alone.insert(alone.end(), row.begin(), row.end());
        }
        for (int64_t rows = 1; rows <= most; rows += rows < 37 ? 1 : 9) {
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
        const Matrix w(kernel, n, random_grouping(k, random), random);
        const Grouping& g = *w.layout.groups;
        const size_t size = kernel.packed_bytes(n, w.layout);
        const int64_t runs = static_cast<int64_t>(g.runs.size());
        const FactorType zero = w.layout.encoding.zero;
        const int super = w.layout.encoding.super;
        // Integer zeros of 4-bit codes have as many bits.
        const bool halves = kernel.code == CodeType::kU4 && zero == FactorType::kU8 && super == 0;
        const int64_t zero_bits = halves ? 4 : 8 * factor_bytes(zero);
        std::set<int64_t> supers;
        for (const quant::Run& run : g.runs)
            if (super > 0) supers.insert(run.group / super);
        const int64_t row_bits = g.padded * code_bits(kernel.code) +
                                 runs * (8 * factor_bytes(w.layout.encoding.scale) + zero_bits) +
                                 static_cast<int64_t>(supers.size()) * (zero_bits > 0 ? 32 : 16);
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
        const Matrix w(kernel, n, random_grouping(k, random), random);
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
    SerialExecutor serial;
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
    SerialExecutor serial;
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
