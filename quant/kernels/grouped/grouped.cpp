// Packing, and the table entries of the family.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "quant/kernels/grouped/op.h"
#include "quant/kernels/kernels.h"
#include "runtime/base/half.h"

namespace conclave::quant {
namespace grouped {
namespace {

template <int Bits>
constexpr int64_t kChunkBytes = kRows* Bits;

/// Integer zeros of 4-bit codes have 4 bits, too.
bool zero_pairs(const Encoding& e) {
    return e.zero == FactorType::kU8 && e.code == CodeType::kU4 && e.super == 0;
}
/// Of one run of a panel.
int64_t zero_bytes(const Encoding& e) {
    return zero_pairs(e) ? kRows / 2 : kRows * factor_bytes(e.zero);
}

/// Work::super_shift.
int super_shift(const Encoding& e) {
    return e.super > 0 ? std::countr_zero(static_cast<unsigned>(e.super)) : -1;
}
/// Super-blocks that the runs touch; groups ascend from run to run. Every call counts them, so
/// that it shifts where it could divide.
int64_t super_count(const MatrixLayout& layout) {
    const int shift = super_shift(layout.encoding);
    if (shift < 0) return 0;
    int64_t count = 0;
    int32_t last = -1;
    for (const Run& run : layout.groups->runs)
        if (const int32_t s = run.group >> shift; s != last) last = s, ++count;
    return count;
}

/// Byte offsets within a panel.
struct Panel {
    explicit Panel(const MatrixLayout& layout) {
        const auto runs = static_cast<int64_t>(layout.groups->runs.size());
        const Encoding& e = layout.encoding;
        super_zeros_at = super_count(layout) * kRows * 2;
        scales_at = super_zeros_at * (e.zero == FactorType::kNone ? 1 : 2);
        zeros_at = scales_at + runs * kRows * factor_bytes(e.scale);
        codes_at = zeros_at + runs * zero_bytes(layout.encoding);
        bytes = codes_at + layout.groups->padded * kRows * code_bits(layout.encoding.code) / 8;
    }
    int64_t super_zeros_at, scales_at, zeros_at, codes_at, bytes;
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

/// The byte of an E4M3 number; a NaN is 0x7f.
uint8_t e4m3_byte(float v) {
    const auto u = std::bit_cast<uint32_t>(v);
    const uint32_t magnitude = u & 0x7fffffff;
    const uint32_t sign = u >> 24 & 128;
    if (magnitude > 0x7f800000) return 127;
    constexpr uint32_t kNormal = 121u << 23;  // 2^-6
    const uint32_t code = magnitude < kNormal
                              ? static_cast<uint32_t>(std::bit_cast<float>(magnitude) * 512)
                              : (magnitude - (120u << 23)) >> 20;
    return static_cast<uint8_t>(sign | code);
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
    else if (type == FactorType::kE4M3)
        pack_as<uint8_t>(to, from, tile, groups, rows, e4m3_byte);
    else if (type == FactorType::kE8M0)  // the exponent as stored: 0 for 2^-127, 255 for NaN
        pack_as<uint8_t>(to, from, tile, groups, rows, [](float v) {
            return static_cast<uint8_t>(std::bit_cast<uint32_t>(v) >> 23);
        });
    else
        pack_as<uint8_t>(to, from, tile, groups, rows,
                         [](float v) { return static_cast<uint8_t>(v); });
}

/// Super-scales, and the integers that times them (`sign` 1) are the scales; or super-zeros, and
/// those that times minus them are the zeros.
void pack_super(std::byte* supers, std::byte* integers, float sign, const float* super_values,
                const float* products, const CodeTile& tile, const MatrixLayout& layout,
                int64_t row, int64_t rows) {
    const int shift = super_shift(layout.encoding);
    int32_t last = -1;
    for (const Run& run : layout.groups->runs) {
        const int32_t s = run.group >> shift;
        for (int64_t r = 0; r < kRows; ++r) {
            float value = 0, product = 0;
            if (r < rows) {
                value = super_values[(row + r) * tile.super_stride + s - tile.first_super];
                product = products[(row + r) * tile.factor_stride + run.group - tile.first_group];
            }
            if (s != last) {
                const uint16_t half = f32_to_f16(value);
                std::memcpy(supers + 2 * r, &half, sizeof half);
            }
            const float integer = value != 0 ? sign * product / value : 0;  // exact
            *integers++ =
                static_cast<std::byte>(std::isfinite(integer) ? static_cast<int>(integer) : 0);
        }
        if (s != last) supers += kRows * 2;
        last = s;
    }
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

/// All of a panel that is in front of its codes.
void pack_all_factors(std::byte* to, const Panel& panel, const CodeTile& tile,
                      const MatrixLayout& layout, int64_t row, int64_t rows) {
    const Encoding& e = layout.encoding;
    std::byte *const scales = to + panel.scales_at, *const zeros = to + panel.zeros_at;
    if (e.super > 0) {
        pack_super(to, scales, 1, tile.super_scales, tile.scales, tile, layout, row, rows);
        if (e.zero != FactorType::kNone)
            pack_super(to + panel.super_zeros_at, zeros, -1, tile.super_zeros, tile.zeros, tile,
                       layout, row, rows);
        return;
    }
    pack_factors(scales, e.scale, tile.scales, tile, *layout.groups, row, rows);
    if (zero_pairs(e))
        pack_zero_pairs(zeros, tile, *layout.groups, row, rows);
    else
        pack_factors(zeros, e.zero, tile.zeros, tile, *layout.groups, row, rows);
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

void merge(std::byte* to, uint32_t bits) {
    uint32_t there;
    std::memcpy(&there, to, 4);
    there |= bits;
    std::memcpy(to, &there, 4);
}

/// The eight codes of row `r` in a chunk. Planes of one and two bits are merged into zeros.
template <int Bits>
void put_codes(const std::byte* codes, int64_t r, std::byte* to) {
    uint32_t below, above;
    std::memcpy(&below, codes, 4);
    std::memcpy(&above, codes + 4, 4);
    if constexpr (Bits == 8) {
        std::memcpy(to + 4 * r, &below, 4);
        std::memcpy(to + 4 * r + 64, &above, 4);
        return;
    }
    if constexpr (Bits >= 4) {
        const uint32_t nibbles = (below & 0x0f0f0f0f) | (above & 0x0f0f0f0f) << 4;
        std::memcpy(to + 4 * r, &nibbles, 4);
        to += 64;
    }
    constexpr int kDone = Bits >= 4 ? 4 : 0;
    if constexpr (Bits % 4 >= 2) {
        const auto at = to + 4 * (r % 8);
        merge(at, (below >> kDone & 0x03030303) << 2 * (r / 8));
        merge(at, (above >> kDone & 0x03030303) << (4 + 2 * (r / 8)));
        to += 32;
    }
    if constexpr (Bits % 2 == 1) {
        const auto at = to + 4 * (r % 4);
        merge(at, (below >> (Bits - 1) & 0x01010101) << r / 4);
        merge(at, (above >> (Bits - 1) & 0x01010101) << (4 + r / 4));
    }
}

/// `count` chunks of one row, the first of them at `place`, which advances; a missing row (null) is
/// zero.
template <int Bits>
Place pack_row(Place place, int64_t count, const Grouping& groups, const std::byte* row, int64_t r,
               std::byte* to) {
    const int32_t* order = groups.order.empty() ? nullptr : groups.order.data();
    while (count > 0) {
        const int64_t left = place.left(groups);
        if (row && !order && left >= kRunGranule) {
            const int64_t whole = std::min(left / kRunGranule, count);
            const std::byte* from = row + place.column;
            for (int64_t i = 0; i < whole; ++i, to += kChunkBytes<Bits>)
                put_codes<Bits>(from + i * kRunGranule, r, to);
            place.skip(whole * kRunGranule, groups);
            count -= whole;
            continue;
        }
        const int64_t width = std::min(left, kRunGranule);
        std::byte codes[kRunGranule] = {};
        for (int64_t c = 0; row && c < width; ++c)
            codes[c] = row[order ? order[place.column + c] : place.column + c];
        put_codes<Bits>(codes, r, to);
        to += kChunkBytes<Bits>;
        place.skip(width, groups);
        --count;
    }
    return place;
}

template <int Bits>
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
        pack_all_factors(to, panel, tile, layout, row, rows);
        std::byte* codes = to + panel.codes_at;
        Place place;
        for (int64_t left = groups.padded / kRunGranule; left > 0; left -= kAtOnce) {
            const int64_t count = std::min(left, kAtOnce);
            Place end;
            if (Bits != 4 && Bits != 8)
                std::memset(codes, 0, static_cast<size_t>(count * kChunkBytes<Bits>));
            for (int64_t r = 0; r < kRows; ++r)
                end = pack_row<Bits>(place, count, groups,
                                     r < rows ? tile.codes + (row + r) * tile.row_bytes : nullptr,
                                     r, codes);
            place = end;
            codes += count * kChunkBytes<Bits>;
        }
    }
}

/// Scratch: the scales and zeros of some panels in f32, then Work::starts.
size_t factor_bytes_of(const MatrixLayout& layout) {
    const size_t factors = layout.encoding.zero != FactorType::kNone ? 2 : 1;
    return layout.groups->runs.size() * factors * kMaxPanels * kRows * sizeof(float);
}
size_t scratch_bytes(const MatrixLayout& layout) {
    return factor_bytes_of(layout) + layout.groups->blocks.size() * kBlockRows * sizeof(int32_t);
}

/// By the bits of a code.
constexpr decltype(&pack<8>) kPack[] = {nullptr, nullptr, pack<2>, pack<3>, pack<4>,
                                        pack<5>, pack<6>, nullptr, pack<8>};

constexpr std::array<float, 16> kIntegers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

constexpr std::array<float, 256> e4m3_values(float top) {
    std::array<float, 256> values{};
    float power = 0x1p-9f;  // of a last mantissa bit
    for (uint32_t c = 0; c < 128; ++c) {
        const uint32_t exponent = c >> 3, mantissa = c & 7;
        if (exponent > 1 && mantissa == 0) power *= 2;
        values[c] = static_cast<float>(exponent > 0 ? 8 + mantissa : mantissa) * power;
        if (c == 127) values[c] = top;
        values[c + 128] = -values[c];
    }
    return values;
}
constexpr auto kE4M3Values = e4m3_values(std::numeric_limits<float>::quiet_NaN());
constexpr auto kE4M3NValues = e4m3_values(480);

const float* values_of(const Encoding& e) {
    return e.code == CodeType::kU4      ? kIntegers.data()
           : e.code == CodeType::kT4    ? e.levels->levels.data()
           : e.code == CodeType::kE4M3  ? kE4M3Values.data()
           : e.code == CodeType::kE4M3N ? kE4M3NValues.data()
                                        : nullptr;
}

bool scales_in_place(const MatrixLayout& layout) {
    const Encoding& e = layout.encoding;
    return (e.scale == FactorType::kF16 || e.scale == FactorType::kBF16) && e.super == 0 &&
           e.zero == FactorType::kNone && layout.global.multiplier == 1 &&
           layout.global.divisor == 1;
}

template <void (*Run)(const Work&), XType X>
void enter(const GemmCall& call) {
    if (call.n0 >= call.n1 || call.rows <= 0) return;
    const Grouping& groups = *call.layout->groups;
    const Encoding& encoding = call.layout->encoding;
    const Panel panel(*call.layout);
    const int64_t x_scales_at = int8_scales_at(groups);
    Work work{
        .call = call,
        .runs = groups.runs.data(),
        .run_count = static_cast<int64_t>(groups.runs.size()),
        .scale = encoding.scale,
        .zero = encoding.zero,
        .multiplier = call.layout->global.multiplier,
        .divisor = call.layout->global.divisor,
        .scales_in_place = scales_in_place(*call.layout),
        .zero_pairs = zero_pairs(encoding),
        .zero_added = encoding.zero_added,
        .zero_point = is_integer(encoding.code) ? static_cast<float>(encoding.zero_point) : 0.0f,
        .super_shift = super_shift(encoding),
        .super_zeros_at = panel.super_zeros_at,
        .scales_at = panel.scales_at,
        .zeros_at = panel.zeros_at,
        .codes_at = panel.codes_at,
        .panel_bytes = panel.bytes,
        .x_scales_at = x_scales_at,
        .x_sums_at =
            x_scales_at + (X == XType::kI8Row ? 8 : static_cast<int64_t>(groups.blocks.size()) * 4),
        .blocks = static_cast<int64_t>(groups.blocks.size()),
        .factors = reinterpret_cast<float*>(call.scratch),
        .starts = reinterpret_cast<int32_t*>(call.scratch + factor_bytes_of(*call.layout)),
        .values = values_of(encoding),
        .step = 0,
        .max_step = 0,
        .steps = {}};
    if (encoding.code == CodeType::kT4) {
        const auto& steps = encoding.levels->steps;
        int most = 0;
        for (int s : steps) most = std::max(most, std::abs(s));
        for (size_t i = 0; i < steps.size(); ++i)
            work.steps[i] = static_cast<uint8_t>(steps[i] + most);
        work.step = encoding.levels->step;
        work.max_step = static_cast<float>(most);
    }
    Run(work);
}

template <void (*Run)(const Work&), XType X>
constexpr Kernel kernel(const char* name, Isa isa, CodeType code) {
    return {name,
            "grouped",
            isa,
            code,
            X,
            true,
            kRows,
            packed_bytes,
            kPack[static_cast<size_t>(code_bits(code))],
            scratch_bytes,
            enter<Run, X>,
            nullptr,
            true};
}

}  // namespace
}  // namespace grouped

#define CONCLAVE_KERNEL(name, isa, code, x) \
    constinit const Kernel name =           \
        grouped::kernel<grouped::name##_run, XType::x>(#name, Isa::isa, CodeType::code);
#include "quant/kernels/grouped/kernels.inc"
#undef CONCLAVE_KERNEL

}  // namespace conclave::quant
