// Packing, and the table entries of the family.
#include <cstring>

#include "quant/kernels/kernels.h"
#include "quant/kernels/panel/op.h"

namespace conclave::quant {
namespace panel {
namespace {

constexpr int64_t panels(int64_t n) { return (n + kRows - 1) / kRows; }

typedef uint16_t U16x8 __attribute__((vector_size(16)));
typedef uint32_t U32x4 __attribute__((vector_size(16)));
typedef uint64_t U64x2 __attribute__((vector_size(16)));

/// Alternates the low resp. high halves of two vectors, element by element.
U16x8 low(U16x8 a, U16x8 b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
U16x8 high(U16x8 a, U16x8 b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
U32x4 low(U32x4 a, U32x4 b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
U32x4 high(U32x4 a, U32x4 b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }

/// One round of a transposition of Count vectors: neighbours in elements of type V.
template <class V, int Count, class Any>
void weave(Any* v) {
    Any out[Count];
#pragma GCC unroll 8
    for (int i = 0; i < Count / 2; ++i) {
        out[2 * i] = (Any)low((V)v[i], (V)v[i + Count / 2]);
        out[2 * i + 1] = (Any)high((V)v[i], (V)v[i + Count / 2]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < Count; ++i) v[i] = out[i];
}

/// Transposes 16 bytes of each of 16 / Unit rows: v[t] becomes unit t of all of them. Each round
/// merges row i with row i + half, so that after log2(Count) rounds the rows are in order.
template <size_t Unit>
void transpose(U64x2* v) {
    if constexpr (Unit == 2) {
        for (int round = 0; round < 3; ++round) weave<U16x8, 8>(v);
    } else {
        for (int round = 0; round < 2; ++round) weave<U32x4, 4>(v);
    }
}

/// Interleaves `rows` <= kRows rows, Unit bytes (a code, or a pair) of each at a time.
template <size_t Unit>
void interleave(std::byte* to, const std::byte* from, int64_t row_bytes, int64_t rows,
                int64_t steps) {
    constexpr int64_t kLine = 64;
    constexpr int kCount = 16 / Unit;  // rows, and steps, of one transposition
    int64_t t = 0;
    for (; rows == kRows && t + kLine / static_cast<int64_t>(Unit) <= steps; t += kLine / Unit) {
        // A line of each row first: rows 4 KiB apart would evict one another from L1.
        alignas(kLine) std::byte lines[kRows][kLine];
        for (int64_t j = 0; j < kRows; ++j)
            std::memcpy(lines[j], from + j * row_bytes + t * Unit, kLine);
        for (int64_t c = 0; c < kLine; c += 16)
            for (int64_t j = 0; j < kRows; j += kCount) {
                U64x2 v[kCount];
                for (int i = 0; i < kCount; ++i) std::memcpy(&v[i], lines[j + i] + c, 16);
                transpose<Unit>(v);
                std::byte* out = to + t * kRows * Unit + c * kRows + j * Unit;
                for (int i = 0; i < kCount; ++i) std::memcpy(out + i * kRows * Unit, &v[i], 16);
            }
    }
    to += t * kRows * Unit;
    for (; t < steps; ++t, to += kRows * Unit)
        for (int64_t j = 0; j < rows; ++j)
            std::memcpy(to + j * Unit, from + j * row_bytes + t * Unit, Unit);
}

/// One panel; missing rows, and the missing code of an odd pair, are zero.
template <class Code, int64_t Pair>
void pack_panel(std::byte* to, const CodeTile& tile, int64_t row, int64_t rows) {
    constexpr size_t kUnit = Pair * sizeof(Code);
    constexpr size_t kStep = kRows * kUnit;
    const int64_t whole = tile.cols / Pair, left = tile.cols % Pair;
    const std::byte* from = tile.codes + row * tile.row_bytes;
    if (rows == kRows) {
        interleave<kUnit>(to, from, tile.row_bytes, kRows, whole);
    } else {
        std::memset(to, 0, static_cast<size_t>(whole) * kStep);
        interleave<kUnit>(to, from, tile.row_bytes, rows, whole);
    }
    if (left == 0) return;
    to += static_cast<size_t>(whole) * kStep;
    from += static_cast<size_t>(whole) * kUnit;
    std::memset(to, 0, kStep);
    for (int64_t j = 0; j < rows; ++j)
        std::memcpy(to + j * kUnit, from + j * tile.row_bytes, left * sizeof(Code));
}

template <class Code, int64_t Pair>
size_t packed_bytes(int64_t n, const MatrixLayout& layout) {
    return static_cast<size_t>(panels(n) * kRows * ((layout.k + Pair - 1) / Pair * Pair)) *
           sizeof(Code);
}

template <class Code, int64_t Pair>
void pack(std::byte* packed, int64_t, const MatrixLayout& layout, int64_t row0,
          const CodeTile& tile) {
    const size_t panel_bytes = packed_bytes<Code, Pair>(kRows, layout);
    std::byte* to = packed + static_cast<size_t>(row0 / kRows) * panel_bytes;
    for (int64_t row = 0; row < tile.rows; row += kRows, to += panel_bytes)
        pack_panel<Code, Pair>(to, tile, row, tile.rows - row < kRows ? tile.rows - row : kRows);
}

/// Accumulators of two chains for a block of rows, and a block of unpacked steps; see op.h.
size_t scratch_bytes(const MatrixLayout&) {
    return static_cast<size_t>(kGroup * (2 * kBlockRows + kBlockSteps) * kRows) * sizeof(float);
}

constexpr Kernel kernel(const char* name, Isa isa, CodeType code, XType x,
                        void (*run)(const GemmCall&)) {
    Kernel k{name, "panel", isa, code, x, true, kRows, nullptr, nullptr, scratch_bytes, run};
    if (x == XType::kBF16) {
        k.packed_bytes = packed_bytes<uint16_t, 2>;
        k.pack = pack<uint16_t, 2>;
    } else if (code == CodeType::kF32) {
        k.packed_bytes = packed_bytes<uint32_t, 1>;
        k.pack = pack<uint32_t, 1>;
    } else {
        k.packed_bytes = packed_bytes<uint16_t, 1>;
        k.pack = pack<uint16_t, 1>;
    }
    return k;
}

}  // namespace
}  // namespace panel

#define CONCLAVE_KERNEL(name, isa, code, x) \
    constinit const Kernel name =           \
        panel::kernel(#name, Isa::isa, CodeType::code, XType::x, panel::name##_run);
#include "quant/kernels/panel/kernels.inc"
#undef CONCLAVE_KERNEL

}  // namespace conclave::quant
