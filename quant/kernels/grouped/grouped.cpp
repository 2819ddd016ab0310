// Packing, and the table entries of the family.
#include <algorithm>
#include <cstring>

#include "quant/kernels/grouped/op.h"
#include "quant/kernels/kernels.h"
#include "runtime/base/half.h"

namespace conclave::quant {
namespace grouped {
namespace {

template <CodeType Code>
constexpr int64_t kChunkBytes = kRows* code_bits(Code);

/// Integer zeros of 4-bit codes have 4 bits, too.
bool zero_pairs(const Encoding& e) { return e.zero == FactorType::kU8 && e.code == CodeType::kU4; }
/// Of one run of a panel.
int64_t zero_bytes(const Encoding& e) {
    return zero_pairs(e) ? kRows / 2 : kRows * factor_bytes(e.zero);
}

/// Byte offsets within a panel.
struct Panel {
    explicit Panel(const MatrixLayout& layout) {
        const auto runs = static_cast<int64_t>(layout.groups->runs.size());
        zeros_at = runs * kRows * factor_bytes(layout.encoding.scale);
        codes_at = zeros_at + runs * zero_bytes(layout.encoding);
        bytes = codes_at + layout.groups->padded * kRows * code_bits(layout.encoding.code) / 8;
    }
    int64_t zeros_at, codes_at, bytes;
};

size_t packed_bytes(int64_t n, const MatrixLayout& layout) {
    return static_cast<size_t>(ceil_div(n, kRows) * Panel(layout).bytes);
}

/// Rows [row, row + rows) of a tile's scales or zeros; `narrow` gives the stored type back,
/// exactly.
template <class Stored, class Narrow>
void pack_as(std::byte* to, const float* from, const CodeTile& tile, const Grouping& groups,
             int64_t rows, Narrow narrow) {
    for (int64_t r = 0; r < kRows; ++r) {
        std::byte* out = to + r * sizeof(Stored);
        for (const Run& run : groups.runs) {
            const int64_t at = r * tile.factor_stride + run.group - tile.first_group;
            const Stored v = r < rows ? narrow(from[at]) : Stored{};
            std::memcpy(out, &v, sizeof v);
            out += kRows * sizeof v;
        }
    }
}

void pack_factors(std::byte* to, FactorType type, const float* from, const CodeTile& tile,
                  const Grouping& groups, int64_t row, int64_t rows) {
    if (type == FactorType::kNone) return;
    from += row * tile.factor_stride;
    if (type == FactorType::kF32)
        pack_as<float>(to, from, tile, groups, rows, [](float v) { return v; });
    else if (type == FactorType::kF16)
        pack_as<uint16_t>(to, from, tile, groups, rows, [](float v) { return f32_to_f16(v); });
    else if (type == FactorType::kBF16)
        pack_as<uint16_t>(to, from, tile, groups, rows, [](float v) { return f32_to_bf16(v); });
    else
        pack_as<uint8_t>(to, from, tile, groups, rows,
                         [](float v) { return static_cast<uint8_t>(v); });
}

void pack_zero_pairs(std::byte* to, const CodeTile& tile, const Grouping& groups, int64_t row,
                     int64_t rows) {
    const auto zero = [&](const Run& run, int64_t r) {
        if (r >= rows) return 0;
        return static_cast<int>(
            tile.zeros[(row + r) * tile.factor_stride + run.group - tile.first_group]);
    };
    for (const Run& run : groups.runs)
        for (int64_t r = 0; r < kRows / 2; ++r)
            *to++ = static_cast<std::byte>(zero(run, r) | zero(run, kRows / 2 + r) << 4);
}

/// A chunk of the packed columns: the next one to pack.
struct Place {
    size_t run = 0;
    int64_t done = 0;    ///< columns of the run before it
    int64_t column = 0;  ///< in kernel order

    int64_t left(const Grouping& groups) const { return groups.runs[run].columns - done; }
    /// Past `columns` columns of the run: whole chunks, or all that is left.
    void skip(int64_t columns, const Grouping& groups) {
        column += columns;
        done += columns;
        if (left(groups) == 0) ++run, done = 0;
    }
};

/// The eight codes of one row in a chunk; `to` points at its first byte there.
template <CodeType Code>
void put_codes(const std::byte* codes, std::byte* to) {
    uint32_t below, above;
    std::memcpy(&below, codes, 4);
    std::memcpy(&above, codes + 4, 4);
    if constexpr (Code == CodeType::kU4) {
        below |= above << 4;
        std::memcpy(to, &below, 4);
    } else {
        std::memcpy(to, &below, 4);
        std::memcpy(to + 64, &above, 4);
    }
}

/// `count` chunks of one row, the first of them at `place`, which advances; a missing row (null) is
/// zero.
template <CodeType Code>
Place pack_row(Place place, int64_t count, const Grouping& groups, const std::byte* row,
               std::byte* to) {
    const int32_t* order = groups.order.empty() ? nullptr : groups.order.data();
    while (count > 0) {
        const int64_t left = place.left(groups);
        if (row && !order && left >= kRunGranule) {
            const int64_t whole = std::min(left / kRunGranule, count);
            const std::byte* from = row + place.column;
            for (int64_t i = 0; i < whole; ++i, to += kChunkBytes<Code>)
                put_codes<Code>(from + i * kRunGranule, to);
            place.skip(whole * kRunGranule, groups);
            count -= whole;
            continue;
        }
        const int64_t width = std::min(left, kRunGranule);
        std::byte codes[kRunGranule] = {};
        for (int64_t c = 0; row && c < width; ++c)
            codes[c] = row[order ? order[place.column + c] : place.column + c];
        put_codes<Code>(codes, to);
        to += kChunkBytes<Code>;
        place.skip(width, groups);
        --count;
    }
    return place;
}

template <CodeType Code>
void pack(std::byte* packed, int64_t, const MatrixLayout& layout, int64_t row0,
          const CodeTile& tile) {
    // Row after row, so that rows 4 KiB apart do not evict one another from L1; as many chunks at
    // once as stay there while each row adds its four bytes.
    constexpr int64_t kAtOnce = 128;
    const Grouping& groups = *layout.groups;
    const Panel panel(layout);
    std::byte* to = packed + row0 / kRows * panel.bytes;
    for (int64_t row = 0; row < tile.rows; row += kRows, to += panel.bytes) {
        const int64_t rows = std::min(tile.rows - row, kRows);
        pack_factors(to, layout.encoding.scale, tile.scales, tile, groups, row, rows);
        if (zero_pairs(layout.encoding))
            pack_zero_pairs(to + panel.zeros_at, tile, groups, row, rows);
        else
            pack_factors(to + panel.zeros_at, layout.encoding.zero, tile.zeros, tile, groups, row,
                         rows);
        std::byte* codes = to + panel.codes_at;
        Place place;
        for (int64_t left = groups.padded / kRunGranule; left > 0; left -= kAtOnce) {
            const int64_t count = std::min(left, kAtOnce);
            Place end;
            for (int64_t r = 0; r < kRows; ++r)
                end = pack_row<Code>(place, count, groups,
                                     r < rows ? tile.codes + (row + r) * tile.row_bytes : nullptr,
                                     codes + 4 * r);
            place = end;
            codes += count * kChunkBytes<Code>;
        }
    }
}

size_t scratch_bytes(const MatrixLayout&) { return 0; }

template <void (*Run)(const Work&)>
void enter(const GemmCall& call) {
    if (call.n0 >= call.n1 || call.rows <= 0) return;
    const Grouping& groups = *call.layout->groups;
    const Encoding& encoding = call.layout->encoding;
    const Panel panel(*call.layout);
    const int64_t x_scales_at = int8_scales_at(groups);
    Run({.call = call,
         .runs = groups.runs.data(),
         .run_count = static_cast<int64_t>(groups.runs.size()),
         .scale = encoding.scale,
         .zero = encoding.zero,
         .zero_pairs = zero_pairs(encoding),
         .zero_point = static_cast<float>(encoding.zero_point),
         .scale_bytes = kRows * factor_bytes(encoding.scale),
         .zero_bytes = zero_bytes(encoding),
         .zeros_at = panel.zeros_at,
         .codes_at = panel.codes_at,
         .panel_bytes = panel.bytes,
         .x_scales_at = x_scales_at,
         .x_sums_at = x_scales_at + static_cast<int64_t>(groups.blocks.size()) * 4});
}

template <void (*Run)(const Work&)>
constexpr Kernel kernel(const char* name, Isa isa, CodeType code, XType x) {
    return {name,
            "grouped",
            isa,
            code,
            x,
            true,
            kRows,
            packed_bytes,
            code == CodeType::kU4 ? pack<CodeType::kU4> : pack<CodeType::kU8>,
            scratch_bytes,
            enter<Run>};
}

}  // namespace
}  // namespace grouped

#define CONCLAVE_KERNEL(name, isa, code, x) \
    constinit const Kernel name =           \
        grouped::kernel<grouped::name##_run>(#name, Isa::isa, CodeType::code, XType::x);
#include "quant/kernels/grouped/kernels.inc"
#undef CONCLAVE_KERNEL

}  // namespace conclave::quant
