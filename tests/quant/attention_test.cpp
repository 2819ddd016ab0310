// Attention of every instruction set against softmax in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "quant/kernels/attention/op.h"
#include "tests/quant/support.h"

namespace conclave::quant::test {
namespace {

CpuFeatures only(Isa isa) {
    CpuFeatures f;
    for (int i = 0; i <= static_cast<int>(isa); ++i) f.mask |= 1u << i;
    return f;
}

/// One KV head's blocks, each ending at a guard page, and query heads.
struct Problem {
    Problem(CodeType type, int64_t head_count, int64_t kd, int64_t vd, int64_t block,
            int64_t token_count, Random& random)
        : d(kd), dv(vd), tokens(token_count), heads(head_count) {
        call.kv_type = type;
        call.heads = heads;
        call.d = d;
        call.dv = dv;
        call.block_tokens = block;
        call.k_stride = d + random.in(0, 5);
        call.v_stride = dv + random.in(0, 5);
        call.scale = 1 / std::sqrt(static_cast<float>(d));
        for (int64_t first = 0; first < tokens; first += block) {
            const int64_t count = std::min(block, tokens - first);
            k.push_back(fill(count, d, call.k_stride, 1.5f, random));
            v.push_back(fill(count, dv, call.v_stride, 1.0f, random));
        }
        for (auto& b : k) k_blocks.push_back(b.data());
        for (auto& b : v) v_blocks.push_back(b.data());
        call.k_blocks = k_blocks.data();
        call.v_blocks = v_blocks.data();
        for (int64_t h = 0; h < heads; ++h) {
            q.emplace_back(static_cast<size_t>(d) * 4);
            for (int64_t i = 0; i < d; ++i) q.back().as<float>()[i] = 1.5f * random.normal();
            q_pointers.push_back(q.back().as<float>());
            sinks.push_back(random.normal());
        }
    }
    GuardedBytes fill(int64_t count, int64_t width, int64_t stride, float scale, Random& random) {
        const int64_t bytes = code_bytes(call.kv_type);
        GuardedBytes block(static_cast<size_t>(((count - 1) * stride + width) * bytes));
        for (int64_t t = 0; t < count; ++t)
            for (int64_t i = 0; i < width; ++i)
                store_code(call.kv_type, scale * random.normal(),
                           block.data() + (t * stride + i) * bytes);
        return block;
    }
    double at(const std::vector<GuardedBytes>& blocks, int64_t stride, int64_t t, int64_t i) const {
        return load_code(call.kv_type,
                         blocks[t / call.block_tokens].data() +
                             (t % call.block_tokens * stride + i) * code_bytes(call.kv_type));
    }
    /// Heads [first, first + count), each result followed by a poisoned gap that must stay.
    std::vector<float> run(AttentionFn fn, int64_t first, int64_t count, int64_t begin, int64_t end,
                           bool with_sinks) {
        AttentionCall c = call;
        const int64_t stride = dv + 16;
        std::vector<float> out(static_cast<size_t>(count * stride), kPoison);
        std::vector<float*> pointers;
        for (int64_t h = 0; h < count; ++h) pointers.push_back(out.data() + h * stride);
        c.q = q_pointers.data() + first;
        c.out = pointers.data();
        c.heads = count;
        c.begin = begin;
        c.end = end;
        c.sinks = with_sinks ? sinks.data() + first : nullptr;
        AlignedBytes scratch(attention_scratch_bytes(count, d, dv));
        c.scratch = scratch.data();
        fn(c);
        std::vector<float> result;
        for (int64_t h = 0; h < count; ++h) {
            for (int64_t i = 0; i < 16; ++i)
                if (bits(out[h * stride + dv + i]) != bits(kPoison))
                    ADD_FAILURE() << "wrote beyond";
            result.insert(result.end(), pointers[h], pointers[h] + dv);
        }
        return result;
    }
    std::vector<double> reference(int64_t h, int64_t begin, int64_t end, bool with_sinks) const {
        std::vector<double> s, out(static_cast<size_t>(dv));
        for (int64_t t = begin; t < end; ++t) {
            double dot = 0;
            for (int64_t i = 0; i < d; ++i) dot += q_pointers[h][i] * at(k, call.k_stride, t, i);
            s.push_back(dot * call.scale);
        }
        double max = *std::max_element(s.begin(), s.end());
        if (with_sinks) max = std::max(max, double{sinks[h]});
        double sum = with_sinks ? std::exp(sinks[h] - max) : 0;
        for (double a : s) sum += std::exp(a - max);
        for (int64_t t = begin; t < end; ++t)
            for (int64_t i = 0; i < dv; ++i)
                out[i] += std::exp(s[t - begin] - max) / sum * at(v, call.v_stride, t, i);
        return out;
    }

    int64_t d, dv, tokens, heads;
    AttentionCall call;
    std::vector<GuardedBytes> k, v, q;
    std::vector<const std::byte*> k_blocks, v_blocks;
    std::vector<const float*> q_pointers;
    std::vector<float> sinks;
};

class Attention : public testing::TestWithParam<std::tuple<Isa, CodeType>> {
  protected:
    void SetUp() override {
        const Isa isa = std::get<0>(GetParam());
        if (!detect_cpu().has(isa)) GTEST_SKIP() << "this CPU has no " << isa_name(isa);
        fn = attention_kernel(only(isa));
    }
    AttentionFn fn = nullptr;
    CodeType type = std::get<1>(GetParam());
    Random random{8};
};

TEST_P(Attention, EqualsSoftmaxInDouble) {
    for (int round = 0; round < 60; ++round) {
        const int64_t blocks[] = {1, 3, 16, 64};
        Problem p(type, random.in(1, 9), random.in(1, 70), random.in(1, 140), blocks[round % 4],
                  random.in(1, round % 4 == 0 ? 20 : 200), random);
        const int64_t end = random.in(1, p.tokens);
        const int64_t begin = round % 3 ? random.in(0, end - 1) : 0;
        const bool with_sinks = round % 2;
        const auto out = p.run(fn, 0, p.heads, begin, end, with_sinks);
        for (int64_t h = 0; h < p.heads; ++h) {
            const auto want = p.reference(h, begin, end, with_sinks);
            double size = 0;
            for (double v : want) size += v * v;
            size = std::sqrt(size / static_cast<double>(p.dv));
            for (int64_t i = 0; i < p.dv; ++i)
                ASSERT_NEAR(out[h * p.dv + i], want[i], 2e-6 * (size + std::fabs(want[i])))
                    << "d " << p.d << " dv " << p.dv << " keys " << begin << " to " << end;
        }
    }
}

TEST_P(Attention, AHeadIsTheSameInEveryGroup) {
    Problem p(type, 11, 48, 50, 16, 75, random);
    const auto all = p.run(fn, 0, 11, 5, 71, true);
    for (int64_t first = 0; first < 11; ++first)
        for (int64_t count = 1; first + count <= 11; ++count) {
            const auto some = p.run(fn, first, count, 5, 71, true);
            ASSERT_EQ(std::memcmp(some.data(), &all[first * p.dv], some.size() * 4), 0)
                << first << " + " << count;
        }
}

TEST_P(Attention, HugeScoresStayFinite) {
    Problem p(type, 3, 32, 32, 16, 50, random);
    p.call.scale = 500;  // scores beyond what exp can hold
    const auto out = p.run(fn, 0, 3, 0, 50, false);
    for (int64_t h = 0; h < 3; ++h) {
        const auto want = p.reference(h, 0, 50, false);
        for (int64_t i = 0; i < 32; ++i) ASSERT_NEAR(out[h * 32 + i], want[i], 1e-2);
    }
}

INSTANTIATE_TEST_SUITE_P(All, Attention,
                         testing::Combine(testing::Values(Isa::kGeneric, Isa::kAvx2, Isa::kAvx512),
                                          testing::Values(CodeType::kF32, CodeType::kF16,
                                                          CodeType::kBF16)),
                         [](const auto& info) {
                             return std::string(isa_name(std::get<0>(info.param))) + "_" +
                                    code_name(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace conclave::quant::test
