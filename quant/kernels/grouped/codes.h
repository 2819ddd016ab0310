// What the grouped kernels read of a panel: codes, scales and zeros. Internal linkage.
//
// B, an instruction set's bytes: Simd (of quant/simd), Half (16 lanes of 4 bytes), load(p), low(h)
// and high(h) (the nibbles of each byte), column<i>(h) (byte i of each lane as float); for kT4
// Table, table(16 bytes) and look(table, h); either(a, b) (their bits); and planes of a chunk, each
// byte's bits at bit At and above: twos<At>(32 bytes, halves), ones<At>(16 bytes, halves).
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/kernels/grouped/op.h"

namespace conclave::quant::grouped {
namespace {

constexpr int64_t kHalf = 64;     // bytes
constexpr int64_t kAhead = 2048;  // software prefetch distance in bytes, within one 4 KiB page

constexpr int64_t kSuperBytes = kRows * 2;  // the f16 of a panel's rows

template <CodeType Code>
constexpr int64_t kChunkBytes = kRows* code_bits(Code);

/// Eight columns of a panel, a code a byte.
template <class B>
struct Chunk {
    typename B::Half half[2];  ///< columns 0 to 3, and 4 to 7
};

template <class B, int Bits>
Chunk<B> load_chunk(const std::byte* p) {
    __builtin_prefetch(p + kAhead, 0, 3);
    if constexpr (Bits == 4) {
        const auto both = B::load(p);
        return {{B::low(both), B::high(both)}};
    } else if constexpr (Bits < 8) {
        // 16 * Bits bytes: the prefetches of neighbouring chunks meet every line.
        Chunk<B> below, above;
        if constexpr (Bits > 4) {
            below = load_chunk<B, 4>(p);
            if constexpr (Bits == 6)
                B::template twos<4>(p + kHalf, above.half);
            else
                B::template ones<4>(p + kHalf, above.half);
        } else {
            B::template twos<0>(p, below.half);
            if constexpr (Bits == 2) return below;
            B::template ones<2>(p + kHalf / 2, above.half);
        }
        return {{B::either(below.half[0], above.half[0]), B::either(below.half[1], above.half[1])}};
    } else {
        __builtin_prefetch(p + kAhead + kHalf, 0, 3);
        return {{B::load(p), B::load(p + kHalf)}};
    }
}

/// Chunks of integers: codes, or of kT4 the steps of their levels.
template <class B, CodeType Code>
struct Codes {
    static constexpr bool kSteps = false;
    explicit Codes(const Work&) {}
    Chunk<B> load(const std::byte* p) const { return load_chunk<B, code_bits(Code)>(p); }
};
template <class B>
struct Codes<B, CodeType::kT4> {
    static constexpr bool kSteps = true;
    typename B::Table steps;

    explicit Codes(const Work& work) : steps(B::table(work.steps)) {}
    Chunk<B> load(const std::byte* p) const {
        const Chunk<B> q = load_chunk<B, 4>(p);
        return {{B::look(steps, q.half[0]), B::look(steps, q.half[1])}};
    }
};

/// 16 scales or zeros as stored.
template <class S>
typename S::V load_factors(FactorType type, const std::byte* p) {
    if (type == FactorType::kF16) return S::load_f16(p);
    if (type == FactorType::kBF16) return S::load_bf16(p);
    if (type == FactorType::kE4M3) return S::load_e4m3(p);
    if (type == FactorType::kE8M0) return S::load_e8m0(p);
    if (type == FactorType::kI8) return S::load_i8(p);
    return type == FactorType::kU8 ? S::load_u8(p) : S::load_f32(p);
}

/// The scales and zeros of P panels, run after run.
template <class S, int P>
struct Factors {
    using V = typename S::V;
    FactorType scale_type, zero_type;
    bool zero_pairs, zero_added, plain;
    float multiplier, divisor, step;
    const std::byte *scales, *zeros;  ///< of the first panel
    int64_t scale_bytes, zero_bytes, panel_bytes;
    const Run* run;  ///< the next
    int super_shift;
    int32_t super = -1;  ///< of the last run
    const std::byte *super_scales, *super_zeros;
    V super_scale[P], minus_super_zero[P];
    V scale[P];
    V zero[P];   ///< to subtract
    V added[P];  ///< where zeros are added

    /// Codes are those of kT4 in `steps`.
    Factors(const Work& work, const std::byte* panel, bool steps)
        : scale_type(work.scale),
          zero_type(work.zero),
          zero_pairs(work.zero_pairs),
          zero_added(work.zero_added),
          plain(work.multiplier == 1 && work.divisor == 1 && !steps),
          multiplier(work.multiplier),
          divisor(work.divisor),
          step(steps ? work.step : 1.0f),
          scales(panel + work.scales_at),
          zeros(panel + work.zeros_at),
          scale_bytes(work.scale_bytes),
          zero_bytes(work.zero_bytes),
          panel_bytes(work.panel_bytes),
          run(work.runs),
          super_shift(work.super_shift),
          super_scales(panel),
          super_zeros(panel + work.super_zeros_at) {
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p)
            zero[p] = added[p] = S::set1(steps ? work.max_step : work.zero_point);
    }
    V load_scale(int p) const {
        V s = load_factors<S>(scale_type, scales + p * panel_bytes);
        if (super_shift >= 0) s = S::mul(s, super_scale[p]);
        if (plain) return s;
        if (multiplier != 1) s = S::mul(s, S::set1(multiplier));
        if (divisor != 1) s = S::div(s, S::set1(divisor));
        return step == 1 ? s : S::mul(s, S::set1(step));
    }
    /// Of the next run, where that is in another super-block than the last.
    void next_super() {
        const int32_t now = run->group >> super_shift;
        ++run;
        if (now == super) return;
        super = now;
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
            super_scale[p] = S::load_f16(super_scales + p * panel_bytes);
            if (zero_type != FactorType::kNone)
                minus_super_zero[p] = S::sub(S::zero(), S::load_f16(super_zeros + p * panel_bytes));
        }
        super_scales += kSuperBytes;
        super_zeros += kSuperBytes;
    }
    void next() {
        if (super_shift >= 0) next_super();
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) scale[p] = load_scale(p);
        scales += scale_bytes;
        if (zero_type == FactorType::kNone) return;
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
            const V z = zero_pairs ? S::load_u4(zeros + p * panel_bytes)
                                   : load_factors<S>(zero_type, zeros + p * panel_bytes);
            if (super_shift >= 0)
                added[p] = S::mul(z, minus_super_zero[p]);
            else if (zero_added)
                added[p] = z;
            else
                zero[p] = z;
        }
        zeros += zero_bytes;
    }
};

inline float load_float(const std::byte* p) {
    float v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline int32_t load_int(const std::byte* p) {
    int32_t v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

}  // namespace
}  // namespace conclave::quant::grouped
