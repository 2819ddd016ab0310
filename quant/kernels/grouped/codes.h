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
#include "quant/kernels/prefetch.h"

namespace conclave::quant::grouped {
namespace {

constexpr int64_t kHalf = 64;  // bytes

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
    if constexpr (Bits == 4) {
        const auto both = B::load(p);
        return {{B::low(both), B::high(both)}};
    } else if constexpr (Bits < 8) {
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

/// `count` times 16 factors as stored, each to the next `stride` floats.
template <class S>
[[gnu::noinline]] void widen(FactorType type, bool pairs, const std::byte* from, int64_t count,
                             float* to, int64_t stride) {
    const auto each = [&](int64_t bytes, auto load) {
        for (int64_t i = 0; i < count; ++i) S::store(to + i * stride, load(from + i * bytes));
    };
    using P = const std::byte*;
    if (pairs) return each(kRows / 2, [](P p) { return S::load_u4(p); });
    switch (type) {
        case FactorType::kF16:
            return each(kRows * 2, [](P p) { return S::load_f16(p); });
        case FactorType::kBF16:
            return each(kRows * 2, [](P p) { return S::load_bf16(p); });
        case FactorType::kE4M3:
            return each(kRows, [](P p) { return S::load_e4m3(p); });
        case FactorType::kE8M0:
            return each(kRows, [](P p) { return S::load_e8m0(p); });
        case FactorType::kI8:
            return each(kRows, [](P p) { return S::load_i8(p); });
        case FactorType::kU8:
            return each(kRows, [](P p) { return S::load_u8(p); });
        case FactorType::kF32:
        case FactorType::kNone:
            return each(kRows * 4, [](P p) { return S::load_f32(p); });
    }
}

/// Factors of each run times (its super-block's f16 * sign).
template <class S>
[[gnu::noinline]] void multiply_supers(const Work& work, const std::byte* supers, float sign,
                                       float* factors, int64_t stride) {
    auto super = S::zero();
    int32_t last = -1;
    for (int64_t g = 0; g < work.run_count; ++g, factors += stride) {
        const int32_t now = work.runs[g].group >> work.super_shift;
        if (now != last) {
            super = S::mul(S::load_f16(supers), S::set1(sign));
            supers += kSuperBytes;
            last = now;
        }
        S::store(factors, S::mul(S::load(factors), super));
    }
}

/// The scales of a panel's runs, of kT4 in `steps` those of integers, each to the next `stride`
/// floats.
template <class S>
void load_scales(const Work& work, const std::byte* panel, bool steps, float* to, int64_t stride) {
    widen<S>(work.scale, false, panel + work.scales_at, work.run_count, to, stride);
    if (work.super_shift >= 0) multiply_supers<S>(work, panel, 1, to, stride);
    const float step = steps ? work.step : 1;
    if (work.multiplier == 1 && work.divisor == 1 && step == 1) return;
    for (int64_t g = 0; g < work.run_count; ++g, to += stride) {
        auto s = S::load(to);
        if (work.multiplier != 1) s = S::mul(s, S::set1(work.multiplier));
        if (work.divisor != 1) s = S::div(s, S::set1(work.divisor));
        S::store(to, S::mul(s, S::set1(step)));
    }
}
template <class S>
void load_zeros(const Work& work, const std::byte* panel, float* to, int64_t stride) {
    widen<S>(work.zero, work.zero_pairs, panel + work.zeros_at, work.run_count, to, stride);
    if (work.super_shift >= 0)
        multiply_supers<S>(work, panel + work.super_zeros_at, -1, to, stride);
}

/// Whether a tile of P panels reads scales where they are stored; there is nothing else then.
template <int P>
bool reads_in_place(const Work& work, bool steps) {
    return P == 1 && !steps && work.scales_in_place;
}

/// All scales and zeros of P panels become floats in scratch: before the codes, and in a loop of
/// their own, which needs the registers. What lies before the codes is touched first, as fast as
/// memory delivers; with `ahead` it is prefetched so many bytes later. Codes are those of kT4 in
/// `steps`.
template <class S, int P>
void load_factors(const Work& work, int64_t panel, bool steps, int64_t ahead) {
    static_assert(P <= kMaxPanels);
    const std::byte* from = work.call.packed + panel * work.panel_bytes;
    const bool zeros = work.zero != FactorType::kNone;
    const int64_t stride = (zeros ? 2 : 1) * P * kRows;
    float* to = work.factors;
    for (int p = 0; p < P; ++p, from += work.panel_bytes, to += kRows) {
        for (int64_t i = 0; i < work.codes_at; i += kHalf) {
            if (ahead > 0) prefetch<kManyProducts, kHalf>(from + i + ahead);
            static_cast<void>(*static_cast<const volatile std::byte*>(from + i));
        }
        if (reads_in_place<P>(work, steps)) continue;
        load_scales<S>(work, from, steps, to, stride);
        if (zeros) load_zeros<S>(work, from, to + P * kRows, stride);
    }
}

/// What load_factors() left, run after run. A single panel's plain scales of 16 bits are read where
/// they are stored: on Zen 4 that makes 106 instead of 84 % of the read rate with one row, K = 2048
/// and groups of 32, and 99 instead of 64 % with K = 4096.
template <class S, int P>
struct Factors {
    using V = typename S::V;
    const float* at;  ///< of the next run: P * 16 scales, then as many zeros if there are any
    const std::byte* stored;  ///< or its scales in place; null: they are not used there
    bool zeros, zero_added, f16;
    V scale[P];
    V zero[P];   ///< to subtract
    V added[P];  ///< where zeros are added

    Factors(const Work& work, int64_t panel, bool steps)
        : at(work.factors),
          stored(reads_in_place<P>(work, steps)
                     ? work.call.packed + panel * work.panel_bytes + work.scales_at
                     : nullptr),
          zeros(work.zero != FactorType::kNone),
          zero_added(work.zero_added),
          f16(work.scale == FactorType::kF16) {
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p)
            zero[p] = added[p] = S::set1(steps ? work.max_step : work.zero_point);
    }
    void next() {
        if (P == 1 && stored) {
            scale[0] = f16 ? S::load_f16(stored) : S::load_bf16(stored);
            stored += kRows * 2;
            return;
        }
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) scale[p] = S::load(at + p * kRows);
        at += P * kRows;
        if (!zeros) return;
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) (zero_added ? added : zero)[p] = S::load(at + p * kRows);
        at += P * kRows;
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
