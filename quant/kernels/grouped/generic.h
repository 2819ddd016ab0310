// The grouped kernels, written once: see op.h for order and layout. Everything here has internal
// linkage: each instruction set compiles its own copy.
//
// B, an instruction set's bytes: Simd (of quant/simd), Half (16 lanes of 4 bytes), load(p), low(h)
// and high(h) (the nibbles of each byte), column<i>(h) (byte i of each lane as float).
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/kernels/grouped/op.h"
#include "quant/kernels/store_panel.h"

namespace conclave::quant::grouped {
namespace {

constexpr int64_t kHalf = 64;     // bytes
constexpr int64_t kAhead = 2048;  // software prefetch distance in bytes, within one 4 KiB page

constexpr int64_t chunk_bytes(CodeType code) { return kRows * code_bits(code); }

/// Eight columns of a panel, a code a byte.
template <class B>
struct Chunk {
    typename B::Half half[2];  ///< columns 0 to 3, and 4 to 7
};

template <class B, CodeType Code>
Chunk<B> load_chunk(const std::byte* p) {
    __builtin_prefetch(p + kAhead, 0, 3);
    if constexpr (Code == CodeType::kU4) {
        const auto both = B::load(p);
        return {{B::low(both), B::high(both)}};
    } else {
        __builtin_prefetch(p + kAhead + kHalf, 0, 3);
        return {{B::load(p), B::load(p + kHalf)}};
    }
}

/// 16 scales or zeros as stored.
template <class S>
typename S::V load_factors(FactorType type, const std::byte* p) {
    if (type == FactorType::kF16) return S::load_f16(p);
    if (type == FactorType::kBF16) return S::load_bf16(p);
    return type == FactorType::kU8 ? S::load_u8(p) : S::load_f32(p);
}

/// The scales and zeros of one panel, run after run.
template <class S>
struct Factors {
    using V = typename S::V;
    FactorType scale_type, zero_type;
    const std::byte *scales, *zeros;
    V scale, zero;

    Factors(const Work& work, const std::byte* panel)
        : scale_type(work.scale),
          zero_type(work.zero),
          scales(panel),
          zeros(panel + work.zeros_at),
          scale(S::zero()),
          zero(S::set1(work.zero_point)) {}
    void next() {
        scale = load_factors<S>(scale_type, scales);
        scales += kRows * factor_bytes(scale_type);
        if (zero_type == FactorType::kNone) return;
        zero = load_factors<S>(zero_type, zeros);
        zeros += kRows * factor_bytes(zero_type);
    }
};

inline float load_float(const std::byte* p) {
    float v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

/// x in int8. D multiplies: Bytes, Sum (of a block), none(), dot(sum, half, four codes of x),
/// total(sum) as floats. Tile<R> below: R rows of x that share what is unpacked.
template <class D, CodeType Code>
struct Int8 {
    using B = typename D::Bytes;
    using S = typename B::Simd;
    using V = typename S::V;

    /// A block of `chunks` chunks; x and w advance.
    template <int R>
    [[gnu::always_inline]] static void block(const std::byte* w, const std::byte* const (&x)[R],
                                             int64_t at, int chunks, typename D::Sum (&sums)[R]) {
#pragma GCC unroll 4
        for (int c = 0; c < chunks; ++c) {
            const Chunk<B> chunk = load_chunk<B, Code>(w + c * chunk_bytes(Code));
#pragma GCC unroll 2
            for (int h = 0; h < 2; ++h)
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    int32_t four;
                    std::memcpy(&four, x[r] + at + c * kRunGranule + h * 4, sizeof four);
                    sums[r] = D::dot(sums[r], chunk.half[h], four);
                }
        }
    }

    template <int R>
    static void tile(const Work& work, int64_t panel, int64_t row) {
        const std::byte* from = work.call.packed + panel * work.panel_bytes;
        const std::byte* w = from + work.codes_at;
        Factors<S> factors(work, from);
        const std::byte* x[R];
        V acc[R];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            x[r] = static_cast<const std::byte*>(work.call.x[row + r]);
            acc[r] = S::zero();
        }
        int64_t at = 0, scale_at = work.x_scales_at, sum_at = work.x_sums_at;
        for (int64_t g = 0; g < work.run_count; ++g) {
            factors.next();
            for (int64_t left = work.runs[g].columns; left > 0; left -= kBlockColumns) {
                typename D::Sum sums[R];
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) sums[r] = D::none();
                int chunks = kBlockColumns / kRunGranule;
                if (left > kBlockColumns - kRunGranule) {
                    block<R>(w, x, at, kBlockColumns / kRunGranule, sums);
                } else {
                    chunks = static_cast<int>((left + kRunGranule - 1) / kRunGranule);
                    for (int c = 0; c < chunks; ++c)
                        block<R>(w + c * chunk_bytes(Code), x, at + c * kRunGranule, 1, sums);
                }
                w += chunks * chunk_bytes(Code);
                at += chunks * kRunGranule;
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    const V sum = S::set1(load_float(x[r] + sum_at));
                    const V u = S::fnma(factors.zero, sum, D::total(sums[r]));
                    const V s = S::mul(factors.scale, S::set1(load_float(x[r] + scale_at)));
                    acc[r] = S::fma(u, s, acc[r]);
                }
                scale_at += 4;
                sum_at += 4;
            }
        }
        store_panel<S>(work.call, panel, row, R, acc, 1);
    }
};

/// Columns of a chunk as floats q - z, from its bytes.
template <class B, CodeType Code>
struct Widen {
    using Simd = typename B::Simd;
    using Unit = Chunk<B>;
    static constexpr CodeType kCode = Code;
    explicit Widen(const Work&) {}
    static Unit load(const std::byte* p) { return load_chunk<B, Code>(p); }
    template <int C>
    typename Simd::V column(const Unit& unit, typename Simd::V zero) const {
        return Simd::sub(B::template column<C % 4>(unit.half[C / 4]), zero);
    }
};

/// x in f32. U unpacks: see Widen.
template <class U>
struct Float {
    using S = typename U::Simd;
    using V = typename S::V;

    /// Columns C to width - 1 of a chunk.
    template <int R, int C = 0>
    [[gnu::always_inline]] static void columns(const U& unpack, const typename U::Unit& unit,
                                               V zero, const std::byte* const (&x)[R], int64_t at,
                                               int64_t width, V (&chains)[R][4]) {
        if constexpr (C < kRunGranule) {
            if (C >= width) return;
            const V w = unpack.template column<C>(unit, zero);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r)
                chains[r][C % 4] =
                    S::fma(w, S::set1(load_float(x[r] + at + C * 4)), chains[r][C % 4]);
            columns<R, C + 1>(unpack, unit, zero, x, at, width, chains);
        }
    }

    template <int R>
    static void tile(const Work& work, int64_t panel, int64_t row) {
        const std::byte* from = work.call.packed + panel * work.panel_bytes;
        const std::byte* w = from + work.codes_at;
        const U unpack(work);
        Factors<S> factors(work, from);
        const std::byte* x[R];
        V acc[R];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            x[r] = static_cast<const std::byte*>(work.call.x[row + r]);
            acc[r] = S::zero();
        }
        int64_t at = 0;  // bytes
        for (int64_t g = 0; g < work.run_count; ++g) {
            factors.next();
            V chains[R][4];
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) chains[r][i] = S::zero();
            int64_t left = work.runs[g].columns;
            for (; left >= kRunGranule; left -= kRunGranule) {
                columns<R>(unpack, U::load(w), factors.zero, x, at, kRunGranule, chains);
                w += chunk_bytes(U::kCode);
                at += kRunGranule * 4;
            }
            if (left > 0) {
                columns<R>(unpack, U::load(w), factors.zero, x, at, left, chains);
                w += chunk_bytes(U::kCode);
                at += left * 4;
            }
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const V t =
                    S::add(S::add(chains[r][0], chains[r][1]), S::add(chains[r][2], chains[r][3]));
                acc[r] = S::fma(t, factors.scale, acc[r]);
            }
        }
        store_panel<S>(work.call, panel, row, R, acc, 1);
    }
};

template <class Family, int R>
void tile_rows(const Work& work, int64_t panel, int64_t row, int64_t rows) {
    if (rows == R) return Family::template tile<R>(work, panel, row);
    if constexpr (R > 1) tile_rows<Family, R - 1>(work, panel, row, rows);
}

/// Every panel is streamed from memory by the first tile of up to R rows; L1 has it for the others.
template <class Family, int R>
void run(const Work& work) {
    const GemmCall& call = work.call;
    const int64_t tiles = (call.rows + R - 1) / R;
    for (int64_t panel = call.n0 / kRows; panel * kRows < call.n1; ++panel)
        for (int64_t i = 0; i < tiles; ++i) {
            const int64_t row = call.rows * i / tiles, end = call.rows * (i + 1) / tiles;
            tile_rows<Family, R>(work, panel, row, end - row);
        }
}

}  // namespace
}  // namespace conclave::quant::grouped
