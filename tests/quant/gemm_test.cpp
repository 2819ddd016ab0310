// Every kernel of unquantized weights, against sums in double and against itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "quant/kernel.h"
#include "tests/quant/multiply.h"
#include "tests/quant/pair_emulation.h"
#include "tests/quant/support.h"

namespace conclave::quant::test {
namespace {

/// A matrix in model format with gaps between its rows, ending at a guard page.
struct Matrix {
    Matrix(CodeType code, int64_t rows, int64_t cols, Random& random)
        : type(code),
          n(rows),
          k(cols),
          row_bytes(k * code_bytes(code) + 2 * random.in(0, 3)),
          codes(static_cast<size_t>((n - 1) * row_bytes + k * code_bytes(code))) {
        for (int64_t j = 0; j < n; ++j)
            for (int64_t i = 0; i < k; ++i)
                store_code(type, random.normal(),
                           codes.data() + j * row_bytes + i * code_bytes(type));
    }
    MatrixLayout layout() const { return {k, {type}, nullptr}; }
    double at(int64_t j, int64_t i) const {
        return load_code(type, codes.data() + j * row_bytes + i * code_bytes(type));
    }
    CodeTile tile(int64_t row0, int64_t rows) const {
        CodeTile t;
        t.codes = codes.data() + row0 * row_bytes;
        t.row_bytes = row_bytes, t.rows = rows, t.cols = k;
        return t;
    }

    CodeType type;
    int64_t n, k, row_bytes;
    GuardedBytes codes;
};

/// Rows of x in the kernel's type, each ending at a guard page.
struct Rows {
    Rows(XType x, int64_t count, int64_t cols, Random& random) : type(x), k(cols) {
        for (int64_t r = 0; r < count; ++r) {
            memory.emplace_back(
                static_cast<size_t>(type == XType::kBF16 ? (k + 1) / 2 * 4 : k * 4));
            for (int64_t i = 0; i < k; ++i) set(r, i, random.normal());
            if (type == XType::kBF16 && k % 2) memory[r].as<uint16_t>()[k] = 0;
            pointers.push_back(memory[r].data());
        }
    }
    void set(int64_t r, int64_t i, float v) {
        if (type == XType::kBF16)
            memory[r].as<uint16_t>()[i] = f32_to_bf16(v);
        else
            memory[r].as<float>()[i] = v;
    }
    double at(int64_t r, int64_t i) {
        return type == XType::kBF16 ? bf16_to_f32(memory[r].as<uint16_t>()[i])
                                    : memory[r].as<float>()[i];
    }

    XType type;
    int64_t k;
    std::vector<GuardedBytes> memory;
    std::vector<const void*> pointers;
};

AlignedBytes pack_all(const Kernel& kernel, const Matrix& w) {
    AlignedBytes packed(kernel.packed_bytes(w.n, w.layout()));
    kernel.pack(packed.data(), w.n, w.layout(), 0, w.tile(0, w.n));
    return packed;
}

std::vector<float> multiply(const Kernel& kernel, const AlignedBytes& packed, int64_t n, int64_t k,
                            const void* const* x, int64_t rows, int64_t n0, int64_t n1,
                            int64_t gap = 0) {
    return test::multiply(kernel, packed.data(), n, {k, {kernel.code}, nullptr}, x, rows, n0, n1,
                          gap);
}

class Gemm : public testing::TestWithParam<const Kernel*> {
  protected:
    void SetUp() override {
        if (!detect_cpu().has(kernel.isa))
            GTEST_SKIP() << "this CPU has no " << isa_name(kernel.isa);
    }
    const Kernel& kernel = *GetParam();
};

TEST_P(Gemm, EqualsTheSumInDouble) {
    Random random(1);
    for (int round = 0; round < 60; ++round) {
        const int64_t n = random.in(1, 70), k = random.in(1, 300);
        const int64_t rows = round % 10 == 9 ? random.in(20, 40) : random.in(1, 19);
        const Matrix w(kernel.code, n, k, random);
        Rows x(kernel.x, rows, k, random);
        const int64_t n0 = random.in(0, n), n1 = random.in(n0, n);
        const auto packed = pack_all(kernel, w);
        const auto out = multiply(kernel, packed, n, k, x.pointers.data(), rows, n0, n1, round % 3);
        ASSERT_EQ(static_cast<int64_t>(out.size()), rows * (n1 - n0));
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t j = n0; j < n1; ++j) {
                double sum = 0, magnitude = 0;
                for (int64_t i = 0; i < k; ++i) {
                    sum += x.at(r, i) * w.at(j, i);
                    magnitude += std::fabs(x.at(r, i) * w.at(j, i));
                }
                const double bound = 0x1p-24 * static_cast<double>(k + 4) * magnitude;
                ASSERT_NEAR(out[r * (n1 - n0) + j - n0], sum, bound)
                    << "n " << n << " k " << k << " rows " << rows << " at " << r << ", " << j;
            }
    }
}

TEST_P(Gemm, EachElementIsTheSameInEveryBatchAndColumnRange) {
    ASSERT_TRUE(kernel.consistent);
    Random random(2);
    for (int64_t k : {1, 2, 3, 37, 128, 259}) {
        const int64_t n = random.in(33, 70), most = 33;
        const Matrix w(kernel.code, n, k, random);
        Rows x(kernel.x, most, k, random);
        const auto packed = pack_all(kernel, w);
        std::vector<float> alone;
        for (int64_t r = 0; r < most; ++r) {
            const auto row = multiply(kernel, packed, n, k, &x.pointers[r], 1, 0, n);
            alone.insert(alone.end(), row.begin(), row.end());
        }
        for (int64_t rows = 1; rows <= most; ++rows) {
            const int64_t first = random.in(0, most - rows);
            int64_t n0 = 0;
            while (n0 < n) {  // a random split of the columns
                const int64_t n1 = rows % 4 == 0 ? n : random.in(n0 + 1, n);
                const auto out =
                    multiply(kernel, packed, n, k, &x.pointers[first], rows, n0, n1, rows % 2);
                for (int64_t r = 0; r < rows; ++r)
                    ASSERT_TRUE(same(&out[r * (n1 - n0)], &alone[(first + r) * n + n0], n1 - n0))
                        << "k " << k << " rows " << rows << " columns " << n0 << " to " << n1;
                n0 = n1;
            }
        }
    }
}

TEST_P(Gemm, PackedBytesDoNotDependOnTheTiles) {
    Random random(3);
    for (int round = 0; round < 20; ++round) {
        const int64_t n = random.in(1, 150), k = random.in(1, 70);
        const Matrix w(kernel.code, n, k, random);
        const auto whole = pack_all(kernel, w);
        AlignedBytes zeros(whole.size());
        std::memset(zeros.data(), 0, zeros.size());
        kernel.pack(zeros.data(), n, w.layout(), 0, w.tile(0, n));
        ASSERT_EQ(std::memcmp(zeros.data(), whole.data(), whole.size()), 0) << "bytes left as is";

        std::vector<int64_t> cuts{0};
        while (cuts.back() < n)
            cuts.push_back(std::min(n, cuts.back() + kernel.row_block * random.in(1, 3)));
        AlignedBytes tiled(whole.size());
        for (size_t i = cuts.size() - 1; i > 0; --i)
            kernel.pack(tiled.data(), n, w.layout(), cuts[i - 1],
                        w.tile(cuts[i - 1], cuts[i] - cuts[i - 1]));
        ASSERT_EQ(std::memcmp(tiled.data(), whole.data(), whole.size()), 0) << n << " x " << k;
    }
}

TEST_P(Gemm, ARowWithNanOrInfinityLeavesTheOthersAlone) {
    Random random(4);
    const int64_t n = 35, k = 61;
    const Matrix w(kernel.code, n, k, random);
    const auto packed = pack_all(kernel, w);
    for (int64_t rows : {2, 3, 7, 12, 13, 30}) {
        Rows x(kernel.x, rows, k, random);
        const auto before = multiply(kernel, packed, n, k, x.pointers.data(), rows, 0, n);
        const int64_t bad = random.in(0, rows - 1);
        for (float value :
             {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
            x.set(bad, random.in(0, k - 1), value);
            const auto after = multiply(kernel, packed, n, k, x.pointers.data(), rows, 0, n);
            for (int64_t r = 0; r < rows; ++r) {
                ASSERT_EQ(same(&after[r * n], &before[r * n], n), r != bad) << r << " of " << rows;
            }
        }
    }
}

TEST_P(Gemm, FusedKernelsOfAllInstructionSetsAgree) {
    if (kernel.isa == Isa::kGeneric) return;  // rounds its products
    Random random(5);
    const int64_t n = 40, k = 203, rows = 15;
    const Matrix w(kernel.code, n, k, random);
    Rows x(kernel.x, rows, k, random);
    const auto mine = multiply(kernel, pack_all(kernel, w), n, k, x.pointers.data(), rows, 0, n);
    const KernelRegistry registry = KernelRegistry::built_in();
    for (const Kernel* other : registry.kernels()) {
        if (other->isa == Isa::kGeneric || !detect_cpu().has(other->isa)) continue;
        if (other->code != kernel.code || other->x != kernel.x) continue;
        const auto out = multiply(*other, pack_all(*other, w), n, k, x.pointers.data(), rows, 0, n);
        EXPECT_TRUE(same(mine.data(), out.data(), rows * n)) << other->name;
    }
}

INSTANTIATE_TEST_SUITE_P(All, Gemm, testing::ValuesIn(family("panel")),
                         [](const auto& info) { return std::string(info.param->name); });

/// The body of the AVX512-BF16 kernel around a stand-in for the instruction, where that is lacking.
TEST(GemmPair, TheBodyComputesTheReferenceBitForBit) {
    if (!pair_emulation_run || !detect_cpu().has(Isa::kAvx512))
        GTEST_SKIP() << "this CPU has no AVX-512";
    const KernelRegistry registry = KernelRegistry::built_in();
    const Kernel& ref = **std::find_if(
        registry.kernels().begin(), registry.kernels().end(),
        [](const Kernel* k) { return k->name == std::string("panel_bf16_bf16_ref"); });
    Kernel emulation = ref;
    emulation.run = pair_emulation_run;
    Random random(6);
    for (int round = 0; round < 40; ++round) {
        const int64_t n = random.in(1, 70), k = random.in(1, 300), rows = random.in(1, 30);
        const Matrix w(CodeType::kBF16, n, k, random);
        Rows x(XType::kBF16, rows, k, random);
        for (int64_t r = 0; r < rows; ++r)  // products at and below the smallest normal number
            if (round % 2)
                for (int64_t i = 0; i < k; ++i)
                    x.set(r, i,
                          std::ldexp(random.normal(), static_cast<int>(-random.in(122, 132))));
        const auto packed = pack_all(ref, w);
        const int64_t n0 = random.in(0, n - 1), n1 = random.in(n0, n);
        const auto a = multiply(ref, packed, n, k, x.pointers.data(), rows, n0, n1);
        const auto b = multiply(emulation, packed, n, k, x.pointers.data(), rows, n0, n1);
        ASSERT_EQ(a.size(), b.size());
        for (size_t i = 0; i < a.size(); ++i)
            ASSERT_EQ(bits(a[i]), bits(b[i])) << a[i] << " and " << b[i] << ", k " << k;
    }
}

}  // namespace
}  // namespace conclave::quant::test
