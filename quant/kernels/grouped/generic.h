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

constexpr int64_t kGroupBytes = 256 << 10;  // of panels worked on at once: half of a small L2

template <CodeType Code>
constexpr int64_t kChunkBytes = kRows* code_bits(Code);

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

/// The scales and zeros of P panels, run after run.
template <class S, int P>
struct Factors {
    using V = typename S::V;
    FactorType scale_type, zero_type;
    bool zero_pairs;
    const std::byte *scales, *zeros;  ///< of the first panel
    int64_t scale_bytes, zero_bytes, panel_bytes;
    V scale[P], zero[P];

    Factors(const Work& work, const std::byte* panel)
        : scale_type(work.scale),
          zero_type(work.zero),
          zero_pairs(work.zero_pairs),
          scales(panel),
          zeros(panel + work.zeros_at),
          scale_bytes(work.scale_bytes),
          zero_bytes(work.zero_bytes),
          panel_bytes(work.panel_bytes) {
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) zero[p] = S::set1(work.zero_point);
    }
    void next() {
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p)
            scale[p] = load_factors<S>(scale_type, scales + p * panel_bytes);
        scales += scale_bytes;
        if (zero_type == FactorType::kNone) return;
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p)
            zero[p] = zero_pairs ? S::load_u4(zeros + p * panel_bytes)
                                 : load_factors<S>(zero_type, zeros + p * panel_bytes);
        zeros += zero_bytes;
    }
};

inline float load_float(const std::byte* p) {
    float v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

/// x in int8. D multiplies: Bytes, Sum (of a block), none(), dot(sum, half, four codes of x),
/// total(sum) as floats.
template <class D, CodeType Code>
struct Int8 {
    using B = typename D::Bytes;
    using S = typename B::Simd;
    using V = typename S::V;

    /// `chunks` chunks of a block, P panels that are `panel_bytes` apart.
    template <int R, int P>
    [[gnu::always_inline]] static void add(const std::byte* w, int64_t panel_bytes,
                                           const std::byte* const (&x)[R], int64_t at, int chunks,
                                           typename D::Sum (&sums)[R][P]) {
#pragma GCC unroll 4
        for (int c = 0; c < chunks; ++c) {
            Chunk<B> chunk[P];
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p)
                chunk[p] = load_chunk<B, Code>(w + p * panel_bytes + c * kChunkBytes<Code>);
#pragma GCC unroll 2
            for (int h = 0; h < 2; ++h)
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    int32_t four;
                    std::memcpy(&four, x[r] + at + c * kRunGranule + h * 4, sizeof four);
#pragma GCC unroll 4
                    for (int p = 0; p < P; ++p)
                        sums[r][p] = D::dot(sums[r][p], chunk[p].half[h], four);
                }
        }
    }

    template <int R, int P>
    static void tile(const Work& work, int64_t panel, int64_t row) {
        const std::byte* from = work.call.packed + panel * work.panel_bytes;
        const std::byte* w = from + work.codes_at;
        Factors<S, P> factors(work, from);
        const std::byte* x[R];
        V acc[R][P];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            x[r] = static_cast<const std::byte*>(work.call.x[row + r]);
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) acc[r][p] = S::zero();
        }
        int64_t at = 0, scale_at = work.x_scales_at, sum_at = work.x_sums_at;
        for (int64_t g = 0; g < work.run_count; ++g) {
            factors.next();
            for (int64_t left = work.runs[g].columns; left > 0; left -= kBlockColumns) {
                typename D::Sum sums[R][P];
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                    for (int p = 0; p < P; ++p) sums[r][p] = D::none();
                int chunks = kBlockColumns / kRunGranule;
                if (left > kBlockColumns - kRunGranule) {
                    add<R, P>(w, work.panel_bytes, x, at, kBlockColumns / kRunGranule, sums);
                } else {
                    chunks = static_cast<int>((left + kRunGranule - 1) / kRunGranule);
                    for (int c = 0; c < chunks; ++c)
                        add<R, P>(w + c * kChunkBytes<Code>, work.panel_bytes, x,
                                  at + c * kRunGranule, 1, sums);
                }
                w += chunks * kChunkBytes<Code>;
                at += chunks * kRunGranule;
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    const V sum = S::set1(load_float(x[r] + sum_at));
                    const V x_scale = S::set1(load_float(x[r] + scale_at));
#pragma GCC unroll 4
                    for (int p = 0; p < P; ++p) {
                        const V u = S::fnma(factors.zero[p], sum, D::total(sums[r][p]));
                        acc[r][p] = S::fma(u, S::mul(factors.scale[p], x_scale), acc[r][p]);
                    }
                }
                scale_at += 4;
                sum_at += 4;
            }
        }
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) store_panel<S>(work.call, panel + p, row, R, acc[0] + p, P);
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

    /// Columns C to width - 1 of a chunk of P panels.
    template <int R, int P, int C = 0>
    [[gnu::always_inline]] static void columns(const U& unpack, const typename U::Unit (&unit)[P],
                                               const V (&zero)[P], const std::byte* const (&x)[R],
                                               int64_t at, int64_t width, V (&chains)[R][P][4]) {
        if constexpr (C < kRunGranule) {
            if (C >= width) return;
            V w[P];
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) w[p] = unpack.template column<C>(unit[p], zero[p]);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const V xc = S::set1(load_float(x[r] + at + C * 4));
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p)
                    chains[r][p][C % 4] = S::fma(w[p], xc, chains[r][p][C % 4]);
            }
            columns<R, P, C + 1>(unpack, unit, zero, x, at, width, chains);
        }
    }

    template <int R, int P>
    static void tile(const Work& work, int64_t panel, int64_t row) {
        const std::byte* from = work.call.packed + panel * work.panel_bytes;
        const std::byte* w = from + work.codes_at;
        const U unpack(work);
        Factors<S, P> factors(work, from);
        const std::byte* x[R];
        V acc[R][P];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            x[r] = static_cast<const std::byte*>(work.call.x[row + r]);
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) acc[r][p] = S::zero();
        }
        int64_t at = 0;  // bytes
        for (int64_t g = 0; g < work.run_count; ++g) {
            factors.next();
            V chains[R][P][4];
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
                    for (int i = 0; i < 4; ++i) chains[r][p][i] = S::zero();
            for (int64_t left = work.runs[g].columns; left > 0; left -= kRunGranule) {
                typename U::Unit unit[P];
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) unit[p] = U::load(w + p * work.panel_bytes);
                w += kChunkBytes<U::kCode>;
                if (left >= kRunGranule) {
                    columns<R, P>(unpack, unit, factors.zero, x, at, kRunGranule, chains);
                    at += kRunGranule * 4;
                } else {
                    columns<R, P>(unpack, unit, factors.zero, x, at, left, chains);
                    at += left * 4;
                }
            }
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) {
                    const V* c = chains[r][p];
                    const V t = S::add(S::add(c[0], c[1]), S::add(c[2], c[3]));
                    acc[r][p] = S::fma(t, factors.scale[p], acc[r][p]);
                }
        }
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) store_panel<S>(work.call, panel + p, row, R, acc[0] + p, P);
    }
};

/// Rows and panels of a register tile where there are many rows; up to MaxSingle rows take one
/// panel at a time, the stream that memory serves best.
template <int Rows, int Panels, int MaxSingle>
struct Tile {
    static_assert(MaxSingle <= Rows);
    static constexpr int kRows = Rows;
    static constexpr int kPanels = Panels;
    static constexpr int kMaxSingle = MaxSingle;
};

template <class Family, int R, int P>
void tile_rows(const Work& work, int64_t panel, int64_t row, int64_t rows) {
    if (rows == R) return Family::template tile<R, P>(work, panel, row);
    if constexpr (R > 1) tile_rows<Family, R - 1, P>(work, panel, row, rows);
}

/// Panels [begin, end), P at a time while they last, for some rows.
template <class Family, class Tiles, int P>
void tile_panels(const Work& work, int64_t begin, int64_t end, int64_t row, int64_t rows) {
    for (; begin + P <= end; begin += P) tile_rows<Family, Tiles::kRows, P>(work, begin, row, rows);
    if constexpr (P > 1) tile_panels<Family, Tiles, 1>(work, begin, end, row, rows);
}

/// A group of panels that L2 keeps is streamed from memory by the first tile of rows; each tile's
/// rows stay in L1 meanwhile.
template <class Family, class Tiles>
void run(const Work& work) {
    const GemmCall& call = work.call;
    const int64_t end = (call.n1 + kRows - 1) / kRows;
    const int64_t tiles = (call.rows + Tiles::kRows - 1) / Tiles::kRows;
    const int64_t fit = kGroupBytes / work.panel_bytes / Tiles::kPanels * Tiles::kPanels;
    const int64_t group = fit > Tiles::kPanels ? fit : Tiles::kPanels;
    for (int64_t begin = call.n0 / kRows; begin < end; begin += group) {
        const int64_t stop = begin + group < end ? begin + group : end;
        for (int64_t i = 0; i < tiles; ++i) {
            const int64_t row = call.rows * i / tiles, rows = call.rows * (i + 1) / tiles - row;
            if (call.rows > Tiles::kMaxSingle)
                tile_panels<Family, Tiles, Tiles::kPanels>(work, begin, stop, row, rows);
            else
                tile_panels<Family, Tiles, 1>(work, begin, stop, row, rows);
        }
    }
}

}  // namespace
}  // namespace conclave::quant::grouped
