// The panel kernels, written once over a step type T (steps.h): see op.h for order and layout.
// Everything here has internal linkage: each instruction set compiles its own copy.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/kernels/panel/op.h"
#include "quant/kernels/prefetch.h"
#include "quant/kernels/store_panel.h"

namespace conclave::quant::panel {
namespace {

/// Rows and panels per register tile; up to MaxDirect rows are computed from packed codes.
template <int DirectRows, int BlockedRows, int BlockedPanels, int MaxDirect>
struct Tile {
    static_assert(BlockedPanels <= kGroup);
    static constexpr int kDirectRows = DirectRows;
    static constexpr int kBlockedRows = BlockedRows;
    static constexpr int kPanels = BlockedPanels;
    static constexpr int kMaxDirect = MaxDirect;
};

constexpr int64_t kLine = 64;  // bytes of one unpacked step of a panel
constexpr int64_t kXStep = 4;  // bytes of x per step: an f32, or two bf16
/// Bytes between what is multiplied and what is prefetched: 8 KiB are too few (see prefetch.h).
constexpr int64_t kAhead = 16384;

template <class T>
const std::byte* panel_at(const GemmCall& call, int64_t panel) {
    return call.packed + panel * T::steps(call.layout->k) * T::kBytes;
}

/// R rows x one panel x both chains, codes as they are packed.
template <class T, int R>
void direct_tile(const GemmCall& call, int64_t panel, int64_t row) {
    using V = typename T::V;
    const std::byte* w = panel_at<T>(call, panel);
    const std::byte* x[R];
    V a[R], b[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        x[r] = static_cast<const std::byte*>(call.x[row + r]);
        a[r] = b[r] = T::Simd::zero();
    }
    const int64_t steps = T::steps(call.layout->k);
    int64_t t = 0;
    for (; t + 2 <= steps; t += 2) {
        prefetch<R * kLine / T::kBytes, 2 * T::kBytes>(w + kAhead);
        const auto w0 = T::load(w), w1 = T::load(w + T::kBytes);
        w += 2 * T::kBytes;
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            a[r] = T::step(a[r], w0, x[r] + t * kXStep);
            b[r] = T::step(b[r], w1, x[r] + t * kXStep + kXStep);
        }
    }
    if (t < steps) {
        const auto w0 = T::load(w);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) a[r] = T::step(a[r], w0, x[r] + t * kXStep);
    }
    V sums[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sums[r] = T::Simd::add(a[r], b[r]);
    store_panel<typename T::Simd>(call, panel, row, R, sums, 1);
}

template <class T, int R>
void direct_rows(const GemmCall& call, int64_t panel, int64_t row, int64_t rows) {
    if (rows == R) return direct_tile<T, R>(call, panel, row);
    if constexpr (R > 1) direct_rows<T, R - 1>(call, panel, row, rows);
}

/// Few rows: every panel is streamed from memory by the first tile of rows.
template <class T, class Tiles>
void direct(const GemmCall& call) {
    const int64_t tiles = (call.rows + Tiles::kDirectRows - 1) / Tiles::kDirectRows;
    for (int64_t panel = call.n0 / kRows; panel * kRows < call.n1; ++panel)
        for (int64_t i = 0; i < tiles; ++i) {
            const int64_t row = call.rows * i / tiles, end = call.rows * (i + 1) / tiles;
            direct_rows<T, Tiles::kDirectRows>(call, panel, row, end - row);
        }
}

/// Where many rows are worked on: accumulators of a row block, and a block of unpacked steps.
template <class T>
struct Blocks {
    typename T::V* sums;  ///< [row][panel][chain]
    std::byte* steps;     ///< [chain][step of the chain][panel][kLine]
    explicit Blocks(const GemmCall& call)
        : sums(reinterpret_cast<typename T::V*>(call.scratch)),
          steps(call.scratch + kBlockRows * kGroup * 2 * kLine) {}
};

/// Steps [begin, end) of P panels, begin even.
template <class T, int P>
void unpack(const GemmCall& call, int64_t panel, int64_t begin, int64_t end, std::byte* to) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
        const std::byte* from = panel_at<T>(call, panel + p) + begin * T::kBytes;
        std::byte* even = to + p * kLine;
        std::byte* odd = even + kBlockSteps / 2 * P * kLine;
        int64_t t = begin;
        for (; t + 2 <= end; t += 2) {
            prefetch<kManyProducts, 2 * T::kBytes>(from + kAhead);
            T::keep(even, T::load(from));
            T::keep(odd, T::load(from + T::kBytes));
            from += 2 * T::kBytes;
            even += P * kLine;
            odd += P * kLine;
        }
        if (t < end) T::keep(even, T::load(from));
    }
}

/// One chain of R rows x P panels: `steps` steps of unpacked w, every second step of x.
template <class T, int R, int P>
void chain(const std::byte* w, const void* const* rows, int64_t offset, int64_t steps,
           typename T::V* sums) {
    const std::byte* x[R];
    typename T::V acc[R][P];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        x[r] = static_cast<const std::byte*>(rows[r]) + offset;
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) acc[r][p] = sums[(r * P + p) * 2];
    }
    for (int64_t t = 0; t < steps; ++t) {
        typename T::W wt[P];
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) wt[p] = T::kept(w + (t * P + p) * kLine);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p)
                acc[r][p] = T::step(acc[r][p], wt[p], x[r] + t * 2 * kXStep);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) sums[(r * P + p) * 2] = acc[r][p];
}

template <class T, int R, int P>
void blocked_rows(const Blocks<T>& blocks, const void* const* x, int64_t row, int64_t rows,
                  int64_t begin, int64_t end) {
    if (rows == R) {
        typename T::V* sums = blocks.sums + row * P * 2;
        chain<T, R, P>(blocks.steps, x, begin * kXStep, (end - begin + 1) / 2, sums);
        chain<T, R, P>(blocks.steps + kBlockSteps / 2 * P * kLine, x, (begin + 1) * kXStep,
                       (end - begin) / 2, sums + 1);
        return;
    }
    if constexpr (R > 1) blocked_rows<T, R - 1, P>(blocks, x, row, rows, begin, end);
}

/// P panels for rows [first, first + rows), rows <= kBlockRows.
template <class T, class Tiles, int P>
void blocked_group(const GemmCall& call, int64_t panel, int64_t first, int64_t rows) {
    const Blocks<T> blocks(call);
    for (int64_t i = 0; i < rows * P * 2; ++i) blocks.sums[i] = T::Simd::zero();
    const int64_t steps = T::steps(call.layout->k);
    const int64_t tiles = (rows + Tiles::kBlockedRows - 1) / Tiles::kBlockedRows;
    for (int64_t t = 0; t < steps; t += kBlockSteps) {
        const int64_t end = t + kBlockSteps < steps ? t + kBlockSteps : steps;
        unpack<T, P>(call, panel, t, end, blocks.steps);
        for (int64_t i = 0; i < tiles; ++i) {
            const int64_t row = rows * i / tiles, count = rows * (i + 1) / tiles - row;
            blocked_rows<T, Tiles::kBlockedRows, P>(blocks, call.x + first + row, row, count, t,
                                                    end);
        }
    }
    for (int64_t i = 0; i < rows * P; ++i)
        blocks.sums[i] = T::Simd::add(blocks.sums[2 * i], blocks.sums[2 * i + 1]);
    for (int p = 0; p < P; ++p)
        store_panel<typename T::Simd>(call, panel + p, first, rows, blocks.sums + p, P);
}

/// Many rows: a block of steps is unpacked once and reused by all tiles of a row block.
template <class T, class Tiles>
void blocked(const GemmCall& call) {
    const int64_t end = (call.n1 + kRows - 1) / kRows;
    const int64_t blocks = (call.rows + kBlockRows - 1) / kBlockRows;
    for (int64_t i = 0; i < blocks; ++i) {
        const int64_t first = call.rows * i / blocks, rows = call.rows * (i + 1) / blocks - first;
        int64_t panel = call.n0 / kRows;
        for (; panel + Tiles::kPanels <= end; panel += Tiles::kPanels)
            blocked_group<T, Tiles, Tiles::kPanels>(call, panel, first, rows);
        for (; panel < end; ++panel) blocked_group<T, Tiles, 1>(call, panel, first, rows);
    }
}

template <class T, class Tiles>
void run(const GemmCall& call) {
    if (call.n0 >= call.n1 || call.rows <= 0) return;
    if (call.rows <= Tiles::kMaxDirect)
        direct<T, Tiles>(call);
    else
        blocked<T, Tiles>(call);
}

}  // namespace
}  // namespace conclave::quant::panel
