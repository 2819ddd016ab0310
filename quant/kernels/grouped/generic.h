// The grouped kernels, written once: see op.h for formulas and layout, codes.h for what an
// instruction set brings along. Everything here has internal linkage: each set compiles its own
// copy.
#pragma once
#include "quant/kernels/grouped/int8.h"

namespace conclave::quant::grouped {
namespace {

/// Columns of a chunk as floats q - z, from its bytes: of kT4 from the steps of its levels.
template <class B, CodeType Code>
struct Widen {
    using Simd = typename B::Simd;
    using Unit = Chunk<B>;
    static constexpr CodeType kCode = Code;
    static constexpr bool kSteps = Codes<B, Code>::kSteps;
    Codes<B, Code> codes;
    explicit Widen(const Work& work) : codes(work) {}
    Unit load(const std::byte* p) const { return codes.load(p); }
    template <int C>
    typename Simd::V column(const Unit& unit, typename Simd::V zero) const {
        return Simd::sub(B::template column<C % 4>(unit.half[C / 4]), zero);
    }
};

/// x in f32. U unpacks: see Widen. Added: zeros are added.
template <class U, bool Added = false>
struct Float {
    using S = typename U::Simd;
    using V = typename S::V;
    static constexpr bool kSteps = U::kSteps;

    static void prepare(const Work&, int64_t, int64_t, int32_t*) {}

    /// Columns C to width - 1 of a chunk of P panels.
    template <int R, int P, int C = 0>
    [[gnu::always_inline]] static void columns(const U& unpack, const typename U::Unit (&unit)[P],
                                               const Factors<S, P>& factors,
                                               const std::byte* const (&x)[R], int64_t at,
                                               int64_t width, V (&chains)[R][P][4]) {
        if constexpr (C < kRunGranule) {
            if (C >= width) return;
            V w[P];
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                w[p] = unpack.template column<C>(unit[p], factors.zero[p]);
                if constexpr (Added) w[p] = S::fma(w[p], factors.scale[p], factors.added[p]);
            }
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const V xc = S::set1(load_float(x[r] + at + C * 4));
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p)
                    chains[r][p][C % 4] = S::fma(w[p], xc, chains[r][p][C % 4]);
            }
            columns<R, P, C + 1>(unpack, unit, factors, x, at, width, chains);
        }
    }

    template <int R, int P>
    static void tile(const Work& work, int64_t panel, int64_t row, const int32_t*, int64_t ahead) {
        const std::byte* w = work.call.packed + panel * work.panel_bytes + work.codes_at;
        const U unpack(work);
        Factors<S, P> factors(work, panel, kSteps);
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
                for (int p = 0; p < P; ++p) {
                    unit[p] = unpack.load(w + p * work.panel_bytes);
                    prefetch<R * kRunGranule, kChunkBytes<U::kCode>>(w + p * work.panel_bytes +
                                                                     ahead);
                }
                w += kChunkBytes<U::kCode>;
                if (left >= kRunGranule) {
                    columns<R, P>(unpack, unit, factors, x, at, kRunGranule, chains);
                    at += kRunGranule * 4;
                } else {
                    columns<R, P>(unpack, unit, factors, x, at, left, chains);
                    at += left * 4;
                }
            }
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) {
                    const V* c = chains[r][p];
                    const V t = S::add(S::add(c[0], c[1]), S::add(c[2], c[3]));
                    acc[r][p] =
                        Added ? S::add(t, acc[r][p]) : S::fma(t, factors.scale[p], acc[r][p]);
                }
        }
        store_panels<S>(work.call, panel, row, acc);
    }
};

/// Rows and panels of a register tile where there are many rows; up to MaxSingle rows take one
/// panel at a time, the stream that memory serves best.
template <int Rows, int Panels, int MaxSingle>
struct Tile {
    static_assert(MaxSingle <= Rows && Panels <= kMaxPanels);
    static constexpr int kRows = Rows;
    static constexpr int kPanels = Panels;
    static constexpr int kMaxSingle = MaxSingle;
};

template <class Family, int R, int P>
void tile_rows(const Work& work, int64_t panel, int64_t row, int64_t rows, const int32_t* starts,
               int64_t ahead) {
    if (rows == R) return Family::template tile<R, P>(work, panel, row, starts, ahead);
    if constexpr (R > 1) tile_rows<Family, R - 1, P>(work, panel, row, rows, starts, ahead);
}

/// Rows [first, first + rows), at most kBlockRows.
struct RowBlock {
    int64_t first, rows, tiles;

    int64_t begin(int64_t tile) const { return rows * tile / tiles; }
    /// For each: its first row of all, its rows, and its Work::starts.
    template <class Body>
    void for_tiles(const Work& work, Body&& body) const {
        for (int64_t i = 0; i < tiles; ++i)
            body(first + begin(i), begin(i + 1) - begin(i), work.starts + begin(i) * work.blocks);
    }
};

/// Panels [begin, end), P at a time while they last. The first tile of rows streams them from
/// memory and asks for the next; L2 keeps them for the others.
template <class Family, class Tiles, int P>
void block_panels(const Work& work, int64_t begin, int64_t end, const RowBlock& block) {
    for (; begin + P <= end; begin += P) {
        int64_t ahead = P * work.panel_bytes;
        load_factors<typename Family::S, P>(work, begin, Family::kSteps,
                                            block.rows > 1 ? ahead : 0);
        block.for_tiles(work, [&](int64_t row, int64_t rows, const int32_t* starts) {
            tile_rows<Family, Tiles::kRows, P>(work, begin, row, rows, starts, ahead);
            ahead = 0;
        });
    }
    if constexpr (P > 1) block_panels<Family, Tiles, 1>(work, begin, end, block);
}

template <class Family, class Tiles>
void run(const Work& work) {
    const GemmCall& call = work.call;
    const int64_t begin = call.n0 / kRows, end = (call.n1 + kRows - 1) / kRows;
    const int64_t blocks = (call.rows + kBlockRows - 1) / kBlockRows;
    for (int64_t b = 0; b < blocks; ++b) {
        const int64_t first = call.rows * b / blocks, rows = call.rows * (b + 1) / blocks - first;
        const RowBlock block{first, rows, (rows + Tiles::kRows - 1) / Tiles::kRows};
        block.for_tiles(work, [&](int64_t row, int64_t count, int32_t* starts) {
            Family::prepare(work, row, count, starts);
        });
        if (rows > Tiles::kMaxSingle)
            block_panels<Family, Tiles, Tiles::kPanels>(work, begin, end, block);
        else
            block_panels<Family, Tiles, 1>(work, begin, end, block);
    }
}

/// f32 input of integer codes.
template <class U, class Tiles>
void run_float(const Work& work) {
    if (work.zero_added)
        run<Float<U, true>, Tiles>(work);
    else
        run<Float<U>, Tiles>(work);
}
template <class D, CodeType Code, class Tiles>
void run_int8(const Work& work) {
    if (work.zero_added)
        run<Int8<D, Code, Zeros::kAdded>, Tiles>(work);
    else if (work.zero != FactorType::kNone)
        run<Int8<D, Code, Zeros::kOwn>, Tiles>(work);
    else
        run<Int8<D, Code, Zeros::kOne>, Tiles>(work);
}
template <class D, CodeType Code, class Tiles>
void run_int8_rows(const Work& work) {
    if (any_x_zero(work))
        run<Int8Row<D, Code, true>, Tiles>(work);
    else
        run<Int8Row<D, Code, false>, Tiles>(work);
}

}  // namespace
}  // namespace conclave::quant::grouped
