// Packing, and the table entries of the family.
#include <cstring>

#include "quant/kernels/kernels.h"
#include "quant/kernels/panel/op.h"

namespace conclave::quant {
namespace panel {
namespace {

constexpr int64_t panels(int64_t n) { return (n + kRows - 1) / kRows; }

/// Interleaves `rows` <= kRows rows, Unit bytes (a code, or a pair) of each at a time.
template <size_t Unit>
void interleave(std::byte* to, const std::byte* from, int64_t row_bytes, int64_t rows,
                int64_t steps) {
    for (int64_t t = 0; t < steps; ++t, to += kRows * Unit, from += Unit)
        for (int64_t j = 0; j < rows; ++j) std::memcpy(to + j * Unit, from + j * row_bytes, Unit);
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
size_t packed_bytes(int64_t n, int64_t k) {
    return static_cast<size_t>(panels(n) * kRows * ((k + Pair - 1) / Pair * Pair)) * sizeof(Code);
}

template <class Code, int64_t Pair>
void pack(std::byte* packed, int64_t, int64_t k, int64_t row0, const CodeTile& tile) {
    const size_t panel_bytes = packed_bytes<Code, Pair>(kRows, k);
    std::byte* to = packed + static_cast<size_t>(row0 / kRows) * panel_bytes;
    for (int64_t row = 0; row < tile.rows; row += kRows, to += panel_bytes)
        pack_panel<Code, Pair>(to, tile, row, tile.rows - row < kRows ? tile.rows - row : kRows);
}

/// Accumulators of two chains for a block of rows, and a block of unpacked steps; see op.h.
size_t scratch_bytes(int64_t) {
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
