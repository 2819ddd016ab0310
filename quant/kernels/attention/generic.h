// Attention, written once over a vector type S of quant/simd. Internal linkage.
//
// Per block of keys: scores of all heads (16 lanes over d, summed in S::sum's tree), then for each
// head the new maximum, its weights, and its values scaled to the new maximum and added up in
// ascending tokens. Heads go in tiles of up to kHeadTile, each K and V row being loaded and
// converted once per tile; the tiling does not touch the order of a head's own operations.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/kernels/attention/op.h"
#include "quant/simd/math.h"

namespace conclave::quant {

void attention_generic(const AttentionCall& call);
#if defined(__x86_64__)
void attention_avx2(const AttentionCall& call);
void attention_avx512(const AttentionCall& call);
#endif

namespace {

constexpr int kHeadTile = 4;  // 4 heads x 2 vectors of values: 8 chains hide the fma's latency

/// A head's place in the scratch.
struct HeadState {
    float* weights;  ///< kMaxBlockTokens scores, then weights, of the block at hand
    float* max;      ///< [0] running maximum, [1] running sum, [2] factor of the last block
    float* values;   ///< running sum of values, dv rounded up to 16

    static constexpr int64_t floats(int64_t dv) {
        return kMaxBlockTokens + 16 + (dv + 15) / 16 * 16;
    }
    HeadState(const AttentionCall& call, int64_t head)
        : weights(reinterpret_cast<float*>(call.scratch) + head * floats(call.dv)),
          max(weights + kMaxBlockTokens),
          values(max + 16) {}
};

template <class S>
struct F32Codes {
    static constexpr int64_t kBytes = 4;
    static typename S::V load(const std::byte* p, int n) {
        return n == 16 ? S::load_f32(p) : S::load_f32_part(p, n);
    }
};
template <class S>
struct F16Codes {
    static constexpr int64_t kBytes = 2;
    static typename S::V load(const std::byte* p, int n) {
        return n == 16 ? S::load_f16(p) : S::load_f16_part(p, n);
    }
};
template <class S>
struct BF16Codes {
    static constexpr int64_t kBytes = 2;
    static typename S::V load(const std::byte* p, int n) {
        return n == 16 ? S::load_bf16(p) : S::load_bf16_part(p, n);
    }
};

/// Tokens [begin, end) of a block.
struct BlockRange {
    const std::byte* k;
    const std::byte* v;
    int64_t begin, end;
};

/// Scores of T neighbouring keys from token t on.
template <class S, class C, int H, int T>
void scores_of_keys(const AttentionCall& call, int64_t head, const BlockRange& block, int64_t t) {
    const std::byte* k = block.k + t * call.k_stride * C::kBytes;
    typename S::V sum[H][T];
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
        for (int j = 0; j < T; ++j) sum[h][j] = S::zero();
    by_16(call.d, [&](int64_t i, int count) {
        typename S::V key[T];
#pragma GCC unroll 4
        for (int j = 0; j < T; ++j)
            key[j] = C::load(k + (j * call.k_stride + i) * C::kBytes, count);
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h) {
            const auto q = load_n<S>(call.q[head + h] + i, count);
#pragma GCC unroll 4
            for (int j = 0; j < T; ++j) sum[h][j] = S::fma(q, key[j], sum[h][j]);
        }
    });
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
        float* to = HeadState(call, head + h).weights + (t - block.begin);
        if constexpr (T == 4)
            S::sum4(sum[h], to);
        else
            for (int j = 0; j < T; ++j) to[j] = S::sum(sum[h][j]);
        for (int j = 0; j < T; ++j) to[j] *= call.scale;
    }
}

/// As many keys at once as registers hold sums of: each load of q serves them all.
template <class S, class C, int H>
void scores(const AttentionCall& call, int64_t head, const BlockRange& block) {
    int64_t t = block.begin;
    if constexpr (S::kRegisters >= H * 4 + 5)
        for (; t + 4 <= block.end; t += 4) scores_of_keys<S, C, H, 4>(call, head, block, t);
    for (; t < block.end; ++t) scores_of_keys<S, C, H, 1>(call, head, block, t);
}

/// Scores to weights relative to the new maximum.
template <class S>
void weigh(const HeadState& state, int64_t tokens) {
    using V = typename S::V;
    constexpr float kNone = -__builtin_inff();
    const auto load = [&](int64_t i, int count) {
        return count == 16 ? S::load(state.weights + i)
                           : load_or<S>(state.weights + i, count, kNone);
    };
    V most = S::set1(state.max[0]);
    by_16(tokens, [&](int64_t i, int count) { most = S::max(most, load(i, count)); });
    const float max = max_lane<S>(most);
    V sum = S::zero();
    by_16(tokens, [&](int64_t i, int count) {
        const V e = exp<S>(S::sub(load(i, count), S::set1(max)));
        sum = S::add(sum, e);
        S::store(state.weights + i, e);
    });
    const float factor = exp1<S>(state.max[0] - max);
    state.max[0] = max;
    state.max[1] = state.max[1] * factor + S::sum(sum);
    state.max[2] = factor;
}

/// C::load of P vectors of values per token, for H heads.
template <class S, class C, int H, int P>
void add_values(const AttentionCall& call, int64_t head, const BlockRange& block, int64_t i,
                int count) {
    typename S::V sum[H][P];
    const float* weights[H];
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
        const HeadState state(call, head + h);
        weights[h] = state.weights - block.begin;
#pragma GCC unroll 2
        for (int p = 0; p < P; ++p)
            sum[h][p] = S::mul(S::load(state.values + i + 16 * p), S::set1(state.max[2]));
    }
    for (int64_t t = block.begin; t < block.end; ++t) {
        const std::byte* v = block.v + (t * call.v_stride + i) * C::kBytes;
        typename S::V value[P];
#pragma GCC unroll 2
        for (int p = 0; p < P; ++p) value[p] = C::load(v + 16 * p * C::kBytes, count);
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h)
#pragma GCC unroll 2
            for (int p = 0; p < P; ++p)
                sum[h][p] = S::fma(S::set1(weights[h][t]), value[p], sum[h][p]);
    }
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h)
#pragma GCC unroll 2
        for (int p = 0; p < P; ++p)
            S::store(HeadState(call, head + h).values + i + 16 * p, sum[h][p]);
}

template <class S, class C, int H>
void block_of_heads(const AttentionCall& call, int64_t head, const BlockRange& block) {
    scores<S, C, H>(call, head, block);
    for (int h = 0; h < H; ++h) weigh<S>(HeadState(call, head + h), block.end - block.begin);
    int64_t i = 0;
    for (; i + 32 <= call.dv; i += 32) add_values<S, C, H, 2>(call, head, block, i, 16);
    for (; i + 16 <= call.dv; i += 16) add_values<S, C, H, 1>(call, head, block, i, 16);
    if (i < call.dv) add_values<S, C, H, 1>(call, head, block, i, static_cast<int>(call.dv - i));
}

template <class S, class C, int H>
void tile_of_heads(const AttentionCall& call, int64_t head, int64_t heads, const BlockRange& b) {
    if (heads == H) return block_of_heads<S, C, H>(call, head, b);
    if constexpr (H > 1) tile_of_heads<S, C, H - 1>(call, head, heads, b);
}

/// The sink joins the sum only; then the values are divided by it.
template <class S>
void finish(const AttentionCall& call, int64_t head) {
    const HeadState state(call, head);
    float sum = state.max[1], factor = 1;
    if (call.sinks) {
        const float sink = call.sinks[head];
        const float max = sink > state.max[0] ? sink : state.max[0];
        factor = exp1<S>(state.max[0] - max);
        sum = sum * factor + exp1<S>(sink - max);
    }
    by_16(call.dv, [&](int64_t i, int count) {
        const auto v = S::mul(S::load(state.values + i), S::set1(factor));
        store_n<S>(call.out[head] + i, count, S::div(v, S::set1(sum)));
    });
}

template <class S, class C>
void attend_codes(const AttentionCall& call) {
    for (int64_t h = 0; h < call.heads; ++h) {
        const HeadState state(call, h);
        state.max[0] = -__builtin_inff();
        state.max[1] = 0;
        for (int64_t i = 0; i < call.dv; i += 16) S::store(state.values + i, S::zero());
    }
    for (int64_t b = call.begin / call.block_tokens; b * call.block_tokens < call.end; ++b) {
        const int64_t first = b * call.block_tokens;
        const int64_t begin = call.begin > first ? call.begin - first : 0;
        const int64_t end =
            call.end - first < call.block_tokens ? call.end - first : call.block_tokens;
        const BlockRange block{call.k_blocks[b], call.v_blocks[b], begin, end};
        for (int64_t h = 0; h < call.heads; h += kHeadTile) {
            const int64_t left = call.heads - h;
            tile_of_heads<S, C, kHeadTile>(call, h, left < kHeadTile ? left : kHeadTile, block);
        }
    }
    for (int64_t h = 0; h < call.heads; ++h) finish<S>(call, h);
}

template <class S>
void attend(const AttentionCall& call) {
    switch (call.kv_type) {
        case CodeType::kF32:
            return attend_codes<S, F32Codes<S>>(call);
        case CodeType::kF16:
            return attend_codes<S, F16Codes<S>>(call);
        case CodeType::kBF16:
            return attend_codes<S, BF16Codes<S>>(call);
        default:  // no cache has scaled codes
            return;
    }
}

}  // namespace
}  // namespace conclave::quant
