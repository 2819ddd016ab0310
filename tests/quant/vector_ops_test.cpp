// Row operations of every instruction set against double, at every tail length.
#include "quant/kernels/vector_ops/op.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "tests/quant/support.h"

namespace conclave::quant::test {
namespace {

CpuFeatures only(Isa isa) {  // the features that make vector_ops() choose `isa`
    CpuFeatures f;
    for (int i = 0; i <= static_cast<int>(isa); ++i) f.mask |= 1u << i;
    return f;
}

/// Floats that end at a guard page.
struct Floats {
    explicit Floats(const std::vector<float>& v)
        : size(static_cast<int64_t>(v.size())), memory(v.size() * sizeof(float)) {
        if (!v.empty()) std::memcpy(memory.data(), v.data(), v.size() * sizeof(float));
    }
    float* data() { return memory.as<float>(); }
    float operator[](int64_t i) { return data()[i]; }

    int64_t size;
    GuardedBytes memory;
};

double ulps(float got, double want) {
    if (std::isinf(got) || std::isinf(want)) return got == static_cast<float>(want) ? 0 : 1e9;
    const int exponent = std::max(std::ilogb(want == 0 ? 0x1p-126 : want), -126);
    return std::fabs(got - want) / std::ldexp(1.0, exponent - 23);
}

class VectorOpsTest : public testing::TestWithParam<Isa> {
  protected:
    void SetUp() override {
        if (!detect_cpu().has(GetParam()))
            GTEST_SKIP() << "this CPU has no " << isa_name(GetParam());
        ops = &vector_ops(only(GetParam()));
        ASSERT_EQ(ops->isa, GetParam());
    }
    /// body(n) for every tail length, and some long rows.
    void sizes(const std::function<void(int64_t)>& body) {
        for (int64_t n = 1; n <= 50; ++n) body(n);
        for (int64_t n : {64, 127, 768, 2049}) body(n);
    }
    const VectorOps* ops = nullptr;
    Random random{7};
};

TEST_P(VectorOpsTest, RmsNorm) {
    sizes([&](int64_t n) {
        const auto x = random.normals(n, 3), w = random.normals(n);
        double squares = 0;
        for (float v : x) squares += double{v} * v;
        const double factor = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-6f);
        Floats in(x), weight(w), out(random.normals(n));
        ops->rms_norm(in.data(), weight.data(), 1e-6f, n, out.data());
        for (int64_t i = 0; i < n; ++i) ASSERT_LT(ulps(out[i], w[i] * (x[i] * factor)), 8) << n;
        ops->rms_norm(in.data(), weight.data(), 1e-6f, n, in.data());
        ASSERT_EQ(std::memcmp(in.data(), out.data(), static_cast<size_t>(n) * 4), 0);
    });
    Floats zero(std::vector<float>(5, 0.0f)), one(std::vector<float>(5, 1.0f));
    ops->rms_norm(zero.data(), one.data(), 1e-6f, 5, zero.data());
    EXPECT_EQ(zero[4], 0.0f);
}

TEST_P(VectorOpsTest, SiluMul) {
    sizes([&](int64_t n) {
        auto g = random.normals(n, 8);
        const auto u = random.normals(n);
        g[0] = -87.0f;
        if (n > 2) g[1] = 90.0f, g[2] = -200.0f;
        Floats gate(g), up(u), out(random.normals(n));
        ops->silu_mul(gate.data(), up.data(), n, out.data());
        for (int64_t i = 0; i < n; ++i) {
            const double want = g[i] / (1 + std::exp(-double{g[i]})) * u[i];
            if (std::fabs(want) > 1e-35) {
                ASSERT_LT(ulps(out[i], want), 5) << g[i];
            }
            ASSERT_NEAR(out[i], want, 1e-6 * std::fabs(want) + 1e-35);
        }
        ops->silu_mul(gate.data(), up.data(), n, up.data());
        ASSERT_EQ(std::memcmp(up.data(), out.data(), static_cast<size_t>(n) * 4), 0);
    });
}

TEST_P(VectorOpsTest, AddScaleAxpyRope) {
    sizes([&](int64_t n) {
        const auto x = random.normals(n), y = random.normals(n), z = random.normals(n);
        const float a = random.normal();
        Floats in(x), sum(y), scaled(y), fused(y);
        ops->add(in.data(), n, sum.data());
        ops->scale(a, in.data(), n, scaled.data());
        ops->axpy(a, in.data(), n, fused.data());
        for (int64_t i = 0; i < n; ++i) {
            ASSERT_EQ(sum[i], y[i] + x[i]);
            ASSERT_EQ(scaled[i], a * x[i]);
            ASSERT_EQ(fused[i], std::fma(a, x[i], y[i])) << "rounded twice";
        }
        std::vector<float> both(x);
        both.insert(both.end(), y.begin(), y.end());
        Floats head(both), cosines(z), sines(x);
        ops->rope_half(head.data(), cosines.data(), sines.data(), n);
        for (int64_t i = 0; i < n; ++i) {
            const double c = z[i], s = x[i];
            ASSERT_NEAR(head[i], x[i] * c - y[i] * s,
                        2e-7 * (std::fabs(x[i] * c) + std::fabs(y[i] * s)));
            ASSERT_NEAR(head[n + i], y[i] * c + x[i] * s,
                        2e-7 * (std::fabs(x[i] * s) + std::fabs(y[i] * c)));
        }
    });
}

TEST_P(VectorOpsTest, Softmax) {
    const float kInf = std::numeric_limits<float>::infinity();
    sizes([&](int64_t n) {
        auto x = random.normals(n, 6);
        if (n > 3) x[n / 2] = -kInf;
        float max = -kInf;  // differences are rounded to f32, as the operation states them
        double sum = 0;
        for (float v : x) max = std::max(max, v);
        for (float v : x) sum += std::exp(double{v - max});
        Floats p(x);
        ops->softmax(p.data(), n);
        for (int64_t i = 0; i < n; ++i) {
            const double want = std::exp(double{x[i] - max}) / sum;
            ASSERT_NEAR(p[i], want, 2e-6 * want + 1e-44) << "n " << n << " at " << i;
        }
        if (n > 3) {
            ASSERT_EQ(p[n / 2], 0.0f);
        }
    });
}

/// exp is seen through softmax of two: x and 0, whose larger one is 0.
TEST_P(VectorOpsTest, ExpIsWithinTwoUlpAndEndsInZero) {
    for (int i = 0; i < 200000; ++i) {
        const float x = static_cast<float>(i) * -0.00052f - random.in(0, 99) * 1e-6f;
        float row[2] = {0.0f, x};
        ops->softmax(row, 2);
        const double e = std::exp(double{x});
        // Division and sum add one ulp to exp's two.
        ASSERT_LT(ulps(row[1], e / (1 + e)), 3.6) << x;
    }
    float row[4] = {0.0f, -1e30f, -std::numeric_limits<float>::infinity(), -104.5f};
    ops->softmax(row, 4);
    EXPECT_EQ(row[0], 1.0f);
    for (int i = 1; i < 4; ++i) EXPECT_EQ(bits(row[i]), 0u);
}

TEST_P(VectorOpsTest, HalfTypesRoundAsTheReferenceDoes) {
    std::vector<float> x = random.normals(5000, 1);
    for (size_t i = 0; i < x.size(); ++i)  // all exponents, and random bits
        x[i] = i % 2 ? std::ldexp(x[i], static_cast<int>(random.in(-160, 130)))
                     : std::bit_cast<float>(static_cast<uint32_t>(random.in(0, 0xffffffff)));
    const uint32_t special[] = {0,          0x80000000, 0x7f800000, 0xff800000, 0x7f800001,
                                0x7fc00000, 0x7f7fffff, 0x3f808000, 0x3f818000, 0x477fefff,
                                0x477ff000, 0x33000000, 0x33000001, 0x387fe000, 0xffffffff};
    for (uint32_t u : special) x.push_back(std::bit_cast<float>(u));
    const auto n = static_cast<int64_t>(x.size());
    for (int64_t skip : {0, 1, 5, 16}) {
        Floats in(std::vector<float>(x.begin() + skip, x.end())),
            rounded(std::vector<float>(x.size(), kPoison));
        GuardedBytes b(static_cast<size_t>(n - skip) * 2), h(static_cast<size_t>(n - skip) * 2);
        ops->round_bf16(in.data(), n - skip, rounded.data());
        ops->to_bf16(in.data(), n - skip, b.as<uint16_t>());
        ops->to_f16(in.data(), n - skip, h.as<uint16_t>());
        for (int64_t i = 0; i < n - skip; ++i) {
            ASSERT_EQ(b.as<uint16_t>()[i], f32_to_bf16(in[i])) << std::hex << bits(in[i]);
            ASSERT_EQ(bits(rounded[i]), bits(bf16_to_f32(f32_to_bf16(in[i]))));
            ASSERT_EQ(h.as<uint16_t>()[i], f32_to_f16(in[i])) << std::hex << bits(in[i]);
        }
    }
}

TEST_P(VectorOpsTest, BlocksBecomeInt8AsTheRuleSays) {
    const auto check = [&](const std::vector<float>& values) {
        const auto n = static_cast<int64_t>(values.size());
        Floats x(values);
        GuardedBytes codes(static_cast<size_t>(n));
        float scale = kPoison, sum = kPoison;
        ops->to_int8(x.data(), n, codes.as<int8_t>(), &scale, &sum);
        float most = 0;
        bool finite = true;
        for (float v : values) {
            finite &= std::isfinite(v);
            most = std::max(most, std::fabs(v));
        }
        const bool zero = !finite || most < 1e-30f;
        if (finite)
            EXPECT_EQ(bits(scale), bits(zero ? 0.0f : most / 127.0f));
        else
            EXPECT_TRUE(std::isnan(scale));
        int total = 0;
        for (int64_t i = 0; i < n; ++i) {
            const float factor = 127.0f / most;
            const float want = zero ? 0 : std::nearbyint(values[i] * factor);
            ASSERT_EQ(codes.as<int8_t>()[i], static_cast<int>(want)) << values[i] << " of " << most;
            total += codes.as<int8_t>()[i];
        }
        EXPECT_EQ(bits(sum), bits(static_cast<float>(total)));
    };
    for (int64_t n = 1; n <= 32; ++n)
        for (float size : {1.0f, 1e-29f, 1e-32f, 0.0f, -0.0f, 3e37f}) {
            auto x = random.normals(n, size);
            check(x);
            for (float& v : x) v = std::round(v / size * 8) / 8;  // many exact ties
            x[random.in(0, n - 1)] = 127 / 4.0f;
            if (size > 0) check(x);
            const int64_t at = random.in(0, n - 1);
            for (float v : {-std::numeric_limits<float>::infinity(), std::nanf("")}) {
                x[at] = v;
                check(x);
            }
        }
}

/// Rounding is exact arithmetic: every table gives the bits of the plain one.
TEST_P(VectorOpsTest, CodesAreThoseOfThePlainTable) {
    const VectorOps& plain = vector_ops(only(Isa::kGeneric));
    const auto expect_same = [](Floats& got, Floats& want, int64_t n) {
        for (int64_t i = 0; i < n; ++i) ASSERT_EQ(bits(got[i]), bits(want[i])) << i << " of " << n;
    };
    sizes([&](int64_t n) {
        std::vector<float> x = random.normals(n, std::ldexp(1.0f, random.in(-8, 8)));
        for (float& v : x)
            if (random.in(0, 3) == 0) v = std::ldexp(v, static_cast<int>(random.in(-140, 100)));
        x[random.in(0, n - 1)] = -0.0f;
        const std::vector<float> poison(static_cast<size_t>(n), kPoison);
        Floats in(x);
        const auto zero = static_cast<float>(random.in(-10000000, 10000000));
        for (const CodeRounding& r :
             {CodeRounding{.over = 0.37f, .scale = 0.37f},
              CodeRounding{.times = 2.7f, .over = 3, .scale = 1.5f, .after = 5, .zero = 5},
              CodeRounding{.times = 1e30f, .scale = 1e-30f, .before = -9, .zero = -9},
              CodeRounding{.over = 1e-6f, .scale = 1e-6f, .after = zero, .zero = zero}}) {
            Floats got(poison), want(poison);
            ops->round_int8(r, in.data(), n, got.data());
            plain.round_int8(r, in.data(), n, want.data());
            expect_same(got, want, n);
            GuardedBytes codes(static_cast<size_t>(n)), plain_codes(static_cast<size_t>(n));
            int32_t sum = 7, plain_sum = 8, total = 0;
            ops->code_int8(r, in.data(), n, codes.as<int8_t>(), &sum);
            plain.code_int8(r, in.data(), n, plain_codes.as<int8_t>(), &plain_sum);
            for (int64_t i = 0; i < n; ++i) {
                const int code = codes.as<int8_t>()[i];
                ASSERT_EQ(code, plain_codes.as<int8_t>()[i]);
                ASSERT_EQ((static_cast<float>(code) - r.zero) * r.scale, got[i]);
                total += code;
            }
            ASSERT_EQ(sum, total);
            ASSERT_EQ(plain_sum, total);
            for (const Minifloat& type : {kMinifloatE4M3, kMinifloatE2M1}) {
                Floats y(poison), plain_y(poison);
                ops->round_minifloat(type, r, in.data(), n, y.data());
                plain.round_minifloat(type, r, in.data(), n, plain_y.data());
                expect_same(y, plain_y, n);
            }
        }
    });
}

TEST_P(VectorOpsTest, RangesTellWhatIsNotFinite) {
    constexpr float kInf = std::numeric_limits<float>::infinity();
    sizes([&](int64_t n) {
        for (float strange : {0.0f, kInf, -kInf, std::nanf("")}) {
            std::vector<float> x = random.normals(n);
            for (float& v : x) v += static_cast<float>(random.in(-1, 1)) * 3;
            if (random.in(0, 1)) x[0] = x[n - 1] = random.in(0, 1) ? 2e38f : -1e-42f;
            const int64_t at = random.in(0, n - 1);
            if (strange != 0) x[at] = strange;
            Floats in(x);
            float most = kPoison, negated = kPoison;
            ops->range(in.data(), n, &most, &negated);
            const bool finite = strange == 0;
            EXPECT_EQ(most, finite ? *std::max_element(x.begin(), x.end()) : kInf);
            EXPECT_EQ(negated, finite ? -*std::min_element(x.begin(), x.end()) : kInf);
            for (int64_t group : {int64_t{1}, int64_t{7}, int64_t{16}, int64_t{32}, n}) {
                const int64_t groups = (n + group - 1) / group;
                Floats out(std::vector<float>(static_cast<size_t>(groups), kPoison));
                ops->group_amax(in.data(), n, group, out.data());
                for (int64_t g = 0; g < groups; ++g) {
                    float want = 0;
                    for (int64_t i = g * group; i < std::min(n, (g + 1) * group); ++i)
                        want = std::max(want, std::isfinite(x[i]) ? std::fabs(x[i]) : kInf);
                    ASSERT_EQ(out[g], want) << "group " << g << " of " << group << ", n " << n;
                }
            }
        }
    });
    float most = 0, negated = 0, amax = kPoison;
    ops->range(nullptr, 0, &most, &negated);
    EXPECT_EQ(most, -kInf);
    EXPECT_EQ(negated, -kInf);
    ops->group_amax(nullptr, 0, 16, &amax);
    EXPECT_EQ(bits(amax), bits(kPoison));
}

TEST_P(VectorOpsTest, AllHalfCodesAreReadExactly) {
    for (int64_t n : {65536, 65521}) {
        GuardedBytes codes(static_cast<size_t>(n) * 2);
        for (int64_t i = 0; i < n; ++i) codes.as<uint16_t>()[i] = static_cast<uint16_t>(65535 - i);
        const std::vector<float> poison(static_cast<size_t>(n), kPoison);
        Floats b(poison), h(poison);
        ops->from_bf16(codes.as<uint16_t>(), n, b.data());
        ops->from_f16(codes.as<uint16_t>(), n, h.data());
        for (int64_t i = 0; i < n; ++i) {
            const uint16_t code = codes.as<uint16_t>()[i];
            ASSERT_EQ(bits(b[i]), bits(bf16_to_f32(code)));
            const float want = f16_to_f32(code);
            if (std::isnan(want))
                ASSERT_TRUE(std::isnan(h[i]));
            else
                ASSERT_EQ(bits(h[i]), bits(want));
        }
    }
}

/// An element's bits depend on its inputs alone: not on its place in the row or the row's length.
TEST_P(VectorOpsTest, ElementsDoNotDependOnTheirPlace) {
    const auto g = random.normals(77, 5), u = random.normals(77);
    Floats gate(g), up(u), whole(g);
    ops->silu_mul(gate.data(), up.data(), 77, whole.data());
    for (int64_t i = 0; i < 77; ++i) {
        float one = kPoison;
        ops->silu_mul(&g[i], &u[i], 1, &one);
        ASSERT_EQ(bits(one), bits(whole[i]));
    }
    // Row sums take one lane order whatever the alignment.
    std::vector<float> row = random.normals(61);
    std::vector<float> first(61), moved(61 + 16);
    ops->rms_norm(row.data(), g.data(), 1e-5f, 61, first.data());
    for (int64_t shift = 1; shift < 16; ++shift) {
        std::vector<float> x(static_cast<size_t>(shift), 1e9f);
        x.insert(x.end(), row.begin(), row.end());
        ops->rms_norm(x.data() + shift, g.data(), 1e-5f, 61, moved.data() + 16 - shift);
        ASSERT_EQ(std::memcmp(moved.data() + 16 - shift, first.data(), 61 * 4), 0);
    }
}

INSTANTIATE_TEST_SUITE_P(All, VectorOpsTest,
                         testing::Values(Isa::kGeneric, Isa::kAvx2, Isa::kAvx512),
                         [](const auto& info) { return std::string(isa_name(info.param)); });

}  // namespace
}  // namespace conclave::quant::test
