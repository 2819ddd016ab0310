#include "runtime/engine/conformance/kernel_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <spdlog/fmt/fmt.h>

#include "quant/activation.h"
#include "quant/dequantize.h"
#include "runtime/base/half.h"
#include "runtime/base/serial_executor.h"
#include "runtime/engine/conformance/random.h"
#include "runtime/engine/conformance/search.h"

namespace conclave::engine::conformance {
namespace {

using quant::CodeType;
using quant::Encoding;
using quant::FactorType;
using quant::Grouping;
using quant::Kernel;
using quant::Run;
using quant::XType;

/// Levels that are whole steps of a power of two, or not.
std::shared_ptr<const quant::Codebook> random_codebook(Random& random) {
    if (random.in(0, 3) == 0) return quant::fp4_codebook();
    const bool steps = random.in(0, 1) == 0;
    std::array<float, 16> levels;
    for (float& v : levels)
        v = steps ? static_cast<float>(random.in(-127, 127)) / 64 : random.number();
    return quant::make_codebook(steps ? "steps" : "odd", levels);
}

/// Groups of k columns: of equal widths, cut at an odd place; or in an order of their own.
Grouping random_grouping(int64_t k, Encoding& e, Random& random) {
    constexpr int64_t kWidths[] = {8, 16, 32, 64, 128, 5, 37, 0, 32, 32};
    const int64_t kind = random.in(0, 12);
    if (kind < 10) {
        e.group = kWidths[kind];
        const int64_t phase = random.in(0, 2) == 0 ? random.in(0, 200) : 0;
        return quant::uniform_grouping({phase, phase + k}, e.group);
    }
    const int64_t groups = random.in(1, k / 20 + 2);
    e.group = ceil_div(k, groups);
    e.permuted = true;
    std::vector<int32_t> group_of(static_cast<size_t>(k));
    for (int32_t& g : group_of) g = static_cast<int32_t>(3 + random.in(0, groups - 1));
    return quant::permuted_grouping(group_of);
}

Encoding random_encoding(const Kernel& kernel, Random& random) {
    constexpr FactorType kScales[] = {FactorType::kF16, FactorType::kBF16, FactorType::kF32,
                                      FactorType::kE4M3, FactorType::kE8M0};
    constexpr FactorType kZeros[] = {FactorType::kNone, FactorType::kNone, FactorType::kU8,
                                     FactorType::kU8,   FactorType::kF16,  FactorType::kBF16,
                                     FactorType::kF32};
    Encoding e;
    e.code = kernel.code;
    if (!quant::is_scaled(e.code)) return e;
    e.bits = quant::code_bits(e.code);
    e.scale = kScales[random.in(0, 4)];
    if (quant::is_integer(e.code)) {
        if (random.in(0, 3) == 0) e.bits = static_cast<int>(random.in(2, e.bits));
        e.zero = kZeros[random.in(0, 6)];
        e.zero_added =
            e.zero != FactorType::kNone && e.zero != FactorType::kU8 && random.in(0, 1) == 0;
        e.zero_point = static_cast<int>(random.in(0, (1 << e.bits) - 1));
    }
    if (e.code == CodeType::kT4) e.levels = random_codebook(random);
    return e;
}

quant::ActivationRule rule_for(XType x, Random& random) {
    if (x == XType::kBF16) return quant::kBF16Input;
    if (x == XType::kI8) return quant::kInt8Input;
    if (x == XType::kF32) return quant::kF32Input;
    quant::ActivationRule rule{.code = quant::ActivationCode::kInt8,
                               .scale_rule = quant::ScaleRule::kAbsMax,
                               .top = 127,
                               .least = 1e-30f};
    if (random.in(0, 1) == 0) rule.scale_rule = quant::ScaleRule::kMinMax;
    return rule;
}

/// What the type can hold.
float random_factor(FactorType type, float mean, float width, Random& random) {
    const float v = mean + width * random.number();
    switch (type) {
        case FactorType::kF16:
            return f16_to_f32(f32_to_f16(v));
        case FactorType::kBF16:
            return bf16_to_f32(f32_to_bf16(v));
        case FactorType::kE4M3:
            return quant::e4m3_value(static_cast<uint8_t>(random.in(1, 126)));
        case FactorType::kE8M0:
            return std::ldexp(1.0f, static_cast<int>(random.in(-12, 4)));
        default:
            return v;
    }
}

int64_t row_size(XType type, const quant::MatrixLayout& layout) {
    switch (type) {
        case XType::kI8:
            return quant::int8_row_bytes(*layout.groups);
        case XType::kI8Row:
            return quant::int8_whole_row_bytes(*layout.groups);
        case XType::kBF16:
            return round_up(layout.k, 2) * 2;
        default:
            return layout.k * 4;
    }
}

int64_t column(const Grouping& g, int64_t c) {
    return g.order.empty() ? c : g.order[static_cast<size_t>(c)];
}

}  // namespace

std::string KernelCase::text(bool ranges) const {
    std::string s = fmt::format("{} x {} weights, {} rows of input", n, k, rows);
    if (!ranges) return s;
    s += fmt::format(", columns [{}, {}) of the result", n0, n1);
    if (gap) s += fmt::format(", {} floats between its rows", gap);
    return s;
}

KernelMatrix::KernelMatrix(const Kernel& kernel, const KernelCase& c) : n_(c.n) {
    part_.name = "conform";
    part_.n = c.n;
    part_.layout.k = c.k;
    Random random(c.seed);
    int tries = 60;
    while (!choose(kernel, random))
        if (--tries == 0) throw Skip{};
    fill_codes(random);
    if (part_.layout.groups) fill_factors(random);
}

bool KernelMatrix::choose(const Kernel& kernel, Random& random) {
    quant::MatrixLayout& layout = part_.layout;
    layout.encoding = random_encoding(kernel, random);
    layout.groups = nullptr;
    layout.global = {};
    part_.rule = rule_for(kernel.x, random);
    if (quant::is_scaled(kernel.code)) {
        if (kernel.x == XType::kBF16) return false;  // there is no such input
        layout.groups =
            std::make_shared<Grouping>(random_grouping(layout.k, layout.encoding, random));
        if (layout.encoding.scale == FactorType::kE4M3)
            (random.in(0, 1) == 0 ? layout.global.multiplier : layout.global.divisor) =
                std::fabs(random.number()) + 0.01f;
    } else if (kernel.x == XType::kI8 || kernel.x == XType::kI8Row) {
        return false;  // nor this
    }
    quant::LinearDescriptor linear;
    linear.parts = {part_};
    return quant::can_implement(kernel, linear, part_, detect_cpu()).empty();
}

void KernelMatrix::fill_codes(Random& random) {
    const Encoding& e = part_.layout.encoding;
    const int64_t bytes = quant::is_scaled(e.code) ? 1 : quant::code_bits(e.code) / 8;
    row_bytes_ = k() * bytes + 2 * random.in(0, 3);
    codes_.assign(static_cast<size_t>(n_ * row_bytes_), std::byte{0xff});
    for (int64_t j = 0; j < n_; ++j)
        for (int64_t i = 0; i < k(); ++i) {
            std::byte* to = &codes_[static_cast<size_t>(j * row_bytes_ + i * bytes)];
            if (quant::is_scaled(e.code)) {
                int64_t code = random.in(0, (1 << e.bits) - 1);
                if (e.code == CodeType::kE4M3 && (code & 127) == 127) --code;  // NaN
                *to = static_cast<std::byte>(code);
                continue;
            }
            const float v = random.number();
            const uint16_t half = e.code == CodeType::kF16 ? f32_to_f16(v) : f32_to_bf16(v);
            if (e.code == CodeType::kF32)
                std::memcpy(to, &v, sizeof v);
            else
                std::memcpy(to, &half, sizeof half);
        }
}

void KernelMatrix::fill_factors(Random& random) {
    const Encoding& e = part_.layout.encoding;
    const Grouping& groups = *part_.layout.groups;
    int64_t last = 0;
    first_group_ = INT32_MAX;
    for (const Run& run : groups.runs) {
        first_group_ = std::min<int64_t>(first_group_, run.group);
        last = std::max<int64_t>(last, run.group);
    }
    stride_ = last + 1 - first_group_ + random.in(0, 2);
    scales_.assign(static_cast<size_t>(n_ * stride_), std::nanf(""));
    zeros_ = scales_;
    for (int64_t j = 0; j < n_; ++j)
        for (const Run& run : groups.runs) {
            const auto at = static_cast<size_t>(factor_at(j, run.group));
            scales_[at] = random_factor(e.scale, 0, 0.1f, random);
            const int64_t most = (1 << e.bits) - 1;
            zeros_[at] =
                e.zero == FactorType::kU8
                    ? static_cast<float>(random.in(0, most))
                    : random_factor(e.zero, e.zero_added ? 0 : static_cast<float>(most) / 2, 1,
                                    random);
        }
}

quant::CodeTile KernelMatrix::tile(int64_t row0, int64_t rows) const {
    quant::CodeTile t;
    t.codes = codes_.data() + row0 * row_bytes_;
    t.row_bytes = row_bytes_, t.rows = rows, t.cols = k();
    if (!part_.layout.groups) return t;
    t.scales = scales_.data() + row0 * stride_;
    if (part_.layout.encoding.zero != FactorType::kNone) t.zeros = zeros_.data() + row0 * stride_;
    t.factor_stride = stride_, t.first_group = first_group_;
    return t;
}

std::string KernelMatrix::text() const {
    std::string s = part_.layout.encoding.to_string();
    if (!part_.layout.groups) return s;
    s += part_.layout.groups->order.empty() ? ", groups of" : ", act-order, groups of";
    const auto& runs = part_.layout.groups->runs;
    for (size_t i = 0; i < runs.size() && i < 6; ++i) s += " " + std::to_string(runs[i].columns);
    return s + (runs.size() > 6 ? " ... columns" : " columns");
}

void KernelMatrix::row(int64_t j, std::vector<float>& numbers,
                       std::vector<double>& magnitudes) const {
    const Encoding& e = part_.layout.encoding;
    numbers.resize(static_cast<size_t>(k()));
    magnitudes.resize(numbers.size());
    const quant::CodeTile t = tile(j, 1);
    quant::RowDecoder(part_.layout).decode(t, 0, numbers.data());
    for (size_t i = 0; i < numbers.size(); ++i) magnitudes[i] = std::fabs(double{numbers[i]});
    if (!quant::is_integer(e.code) && e.code != CodeType::kT4) return;
    double top = 0;  // of the levels: integer kernels shift them to be positive
    for (int i = 0; e.levels && i < 16; ++i)
        top = std::max(top, std::fabs(double{e.levels->levels[static_cast<size_t>(i)]}));
    const Grouping& groups = *part_.layout.groups;
    int64_t c = 0;
    for (const Run& run : groups.runs) {
        const int64_t g = run.group - first_group_;
        const double scale = std::fabs(double{part_.layout.global.of(t.scales[g])});
        const double zero = t.zeros ? std::fabs(double{t.zeros[g]}) : 0;
        for (int64_t end = c + run.columns; c < end; ++c) {
            const auto at = static_cast<size_t>(column(groups, c));
            if (e.levels) {
                magnitudes[at] += top * scale;
                continue;
            }
            const double code = static_cast<double>(t.codes[at]);
            magnitudes[at] += (code + (e.zero_added || !t.zeros ? e.zero_point : zero)) * scale;
            if (e.zero_added) magnitudes[at] += zero;
        }
    }
}

KernelRows::KernelRows(const Kernel& kernel, const KernelMatrix& w, int64_t count, uint64_t seed)
    : type_(kernel.x), w_(w) {
    Random random(seed);
    std::vector<float> x(static_cast<size_t>(count * w.k()));
    for (float& v : x) v = random.number();
    SerialExecutor serial;
    Workspace workspace;
    quant::PreparedInput input(x.data(), w.k(), count, w.k(), quant::vector_ops(detect_cpu()),
                               serial, workspace);
    const void* const* form = input.form(w.part().rule, kernel.x, w.layout());
    const auto bytes = static_cast<size_t>(row_size(kernel.x, w.layout()));
    for (int64_t r = 0; r < count; ++r) {
        memory_.emplace_back(bytes, std::byte{0xff});
        std::memcpy(memory_.back().data(), form[r], bytes);
        pointers_.push_back(memory_.back().data());
    }
}

void KernelRows::row(int64_t r, std::vector<double>& numbers,
                     std::vector<double>& magnitudes) const {
    const auto k = static_cast<size_t>(w_.k());
    numbers.assign(k, 0);
    magnitudes.assign(k, 0);
    const std::byte* row = memory_[static_cast<size_t>(r)].data();
    const Grouping* groups = w_.layout().groups.get();
    const auto* f32 = reinterpret_cast<const float*>(row);
    if (type_ == XType::kF32 || type_ == XType::kBF16) {
        for (size_t c = 0; c < k; ++c) {
            const size_t at =
                groups ? static_cast<size_t>(column(*groups, static_cast<int64_t>(c))) : c;
            numbers[at] = type_ == XType::kF32
                              ? f32[c]
                              : bf16_to_f32(reinterpret_cast<const uint16_t*>(row)[c]);
            magnitudes[at] = std::fabs(numbers[at]);
        }
        return;
    }
    const auto* codes = reinterpret_cast<const int8_t*>(row);
    const auto* factors = reinterpret_cast<const float*>(row + quant::int8_scales_at(*groups));
    int64_t c = 0;
    size_t block = 0;
    for (const Run& run : groups->runs) {
        for (int64_t i = 0; i < run.columns; ++i, ++c) {
            const bool whole = type_ == XType::kI8Row;
            const double scale =
                factors[whole ? 0 : block + static_cast<size_t>(i / quant::kBlockColumns)];
            const double zero = whole ? factors[1] : 0;
            const auto at = static_cast<size_t>(column(*groups, c));
            numbers[at] = (codes[i] - zero) * scale;
            magnitudes[at] = (std::abs(int{codes[i]}) + std::fabs(zero)) * std::fabs(scale);
        }
        codes += round_up(run.columns, quant::kRunGranule);
        block += static_cast<size_t>(ceil_div(run.columns, quant::kBlockColumns));
    }
}

}  // namespace conclave::engine::conformance
