// The panel kernels, written once over a step type T (steps.h): see op.h for order and layout.
// Everything here has internal linkage: each instruction set compiles its own copy.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/kernels/panel/op.h"

namespace conclave::quant::panel {
namespace {

/// Rows per register tile, and from how many rows on panels are unpacked first.
template <int DirectRows, int BlockedRows, int BlockedPanels, int MaxDirect>
struct Tile {
    static_assert(BlockedPanels <= kGroup);
    static constexpr int kDirectRows = DirectRows;
    static constexpr int kBlockedRows = BlockedRows;
    static constexpr int kPanels = BlockedPanels;
    static constexpr int kMaxDirect = MaxDirect;
};

constexpr int64_t kLine = 64;     // bytes of one unpacked step of a panel
constexpr int64_t kXStep = 4;     // bytes of x per step: an f32, or two bf16
constexpr int64_t kAhead = 2048;  // software prefetch distance in bytes, within one 4 KiB page

template <class T>
const std::byte* panel_at(const GemmCall& call, int64_t panel) {
    return call.packed + panel * T::steps(call.k) * T::kBytes;
}

template <class T>
void put(const GemmCall& call, int64_t panel, int64_t row, typename T::V v) {
    const int64_t begin = panel * kRows;
    const int64_t lo = call.n0 > begin ? call.n0 : begin;
    const int64_t hi = call.n1 < begin + kRows ? call.n1 : begin + kRows;
    float* out = call.out + row * call.out_stride + (lo - call.n0);
    if (hi - lo == kRows) {
        T::Simd::store(out, v);
        return;
    }
    float lanes[kRows];
    T::Simd::store(lanes, v);
    for (int64_t j = lo; j < hi; ++j) out[j - lo] = lanes[j - begin];
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
    const int64_t steps = T::steps(call.k);
    int64_t t = 0;
    for (; t + 2 <= steps; t += 2) {
        T::prefetch(w + kAhead);
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
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) put<T>(call, panel, row + r, T::Simd::add(a[r], b[r]));
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

/// scratch: [chain][step of the chain][panel][kLine].
template <class T, int P>
void unpack(const GemmCall& call, int64_t panel) {
    const int64_t steps = T::steps(call.k);
    const int64_t even = (steps + 1) / 2;
    for (int64_t t = 0; t < steps; ++t) {
        std::byte* to = call.scratch + ((t & 1) * even + t / 2) * P * kLine;
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p)
            T::keep(to + p * kLine, T::load(panel_at<T>(call, panel + p) + t * T::kBytes));
    }
}

/// One chain of R rows x P panels: `steps` steps of unpacked w, every second step of x.
template <class T, int R, int P>
void chain(const std::byte* w, const void* const* rows, int64_t offset, int64_t steps,
           typename T::V (&sum)[R][P]) {
    const std::byte* x[R];
    typename T::V acc[R][P];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        x[r] = static_cast<const std::byte*>(rows[r]) + offset;
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) acc[r][p] = T::Simd::zero();
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
        for (int p = 0; p < P; ++p) sum[r][p] = acc[r][p];
}

template <class T, int R, int P>
void blocked_tile(const GemmCall& call, int64_t panel, int64_t row) {
    const int64_t steps = T::steps(call.k);
    const int64_t even = (steps + 1) / 2;
    typename T::V a[R][P], b[R][P];
    chain<T, R, P>(call.scratch, call.x + row, 0, even, a);
    chain<T, R, P>(call.scratch + even * P * kLine, call.x + row, kXStep, steps - even, b);
    for (int r = 0; r < R; ++r)
        for (int p = 0; p < P; ++p)
            put<T>(call, panel + p, row + r, T::Simd::add(a[r][p], b[r][p]));
}

template <class T, int R, int P>
void blocked_rows(const GemmCall& call, int64_t panel, int64_t row, int64_t rows) {
    if (rows == R) return blocked_tile<T, R, P>(call, panel, row);
    if constexpr (R > 1) blocked_rows<T, R - 1, P>(call, panel, row, rows);
}

template <class T, class Tiles, int P>
void blocked_group(const GemmCall& call, int64_t panel) {
    unpack<T, P>(call, panel);
    const int64_t tiles = (call.rows + Tiles::kBlockedRows - 1) / Tiles::kBlockedRows;
    for (int64_t i = 0; i < tiles; ++i) {
        const int64_t row = call.rows * i / tiles, end = call.rows * (i + 1) / tiles;
        blocked_rows<T, Tiles::kBlockedRows, P>(call, panel, row, end - row);
    }
}

/// Many rows: a group of panels is unpacked once and reused by all tiles of rows.
template <class T, class Tiles>
void blocked(const GemmCall& call) {
    const int64_t end = (call.n1 + kRows - 1) / kRows;
    int64_t panel = call.n0 / kRows;
    for (; panel + Tiles::kPanels <= end; panel += Tiles::kPanels)
        blocked_group<T, Tiles, Tiles::kPanels>(call, panel);
    for (; panel < end; ++panel) blocked_group<T, Tiles, 1>(call, panel);
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
