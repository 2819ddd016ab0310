#include "runtime/engine/conformance/kernel_laws.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/engine/conformance/random.h"

namespace conclave::engine::conformance {
namespace {

using quant::Kernel;

constexpr std::byte kPoison{0xff};  ///< NaN in every float type

/// Twice: bytes that pack() leaves as they are differ then.
GuardedBytes memory_for_packed(const Kernel& kernel, const KernelMatrix& w, std::byte poison) {
    const size_t bytes = kernel.packed_bytes(w.n(), w.layout());
    // No layout needs more than f32 in tiles of 1024 x 1024.
    const int64_t most = 4 * round_up(w.n(), 1024) * round_up(w.k(), 1024) + (1 << 20);
    if (bytes > static_cast<size_t>(most))
        throw Error(ErrorCode::kInternal,
                    fmt::format("packed_bytes() is {} for {} x {}", bytes, w.n(), w.k()));
    return GuardedBytes(bytes, poison, 64);
}

GuardedBytes pack_all(const Kernel& kernel, const KernelMatrix& w, std::byte poison = kPoison) {
    GuardedBytes packed = memory_for_packed(kernel, w, poison);
    kernel.pack(packed.data(), w.n(), w.layout(), 0, w.tile(0, w.n()));
    return packed;
}

struct Product {
    std::vector<float> numbers;  ///< rows x (n1 - n0)
    std::string beside;          ///< what was written that should not be
    float at(int64_t r, int64_t j, int64_t width) const {
        return numbers[static_cast<size_t>(r * width + j)];
    }
};

Product multiply(const Kernel& kernel, const KernelMatrix& w, const GuardedBytes& packed,
                 const void* const* x, int64_t rows, Interval columns, int64_t gap) {
    const int64_t width = columns.size(), stride = width + gap;
    const int64_t floats = width == 0 ? 0 : (rows - 1) * stride + width;
    GuardedBytes out(static_cast<size_t>(floats) * sizeof(float), kPoison, sizeof(float));
    GuardedBytes scratch(kernel.scratch_bytes(w.layout()), kPoison, 64);
    kernel.run({packed.data(), w.n(), &w.layout(), x, rows, columns.begin, columns.end,
                reinterpret_cast<float*>(out.data()), stride, scratch.data()});
    Product p;
    p.numbers.resize(static_cast<size_t>(rows * width));
    const auto* result = reinterpret_cast<const float*>(out.data());
    for (int64_t r = 0; r < rows && width > 0; ++r)
        std::copy_n(result + r * stride, width, p.numbers.data() + r * width);
    const std::string beside_out = out.written_beside(), beside = scratch.written_beside();
    if (!beside_out.empty()) p.beside = "run() out: " + beside_out;
    if (!beside.empty()) p.beside = "run() scratch: " + beside;
    for (int64_t i = 0; i < floats * 4; ++i)
        if (i / 4 % stride >= width && out.data()[i] != kPoison)
            p.beside = fmt::format("run() wrote between rows of the result: float {} of row {}",
                                   i / 4 % stride, i / 4 / stride);
    return p;
}

/// Against sums in double over columns [n0, n1).
Verdict compare(const Kernel& kernel, const KernelCase& c, Interval columns) {
    const KernelMatrix w(kernel, c);
    const KernelRows x(kernel, w, c.rows, c.seed + 1);
    const GuardedBytes packed = pack_all(kernel, w);
    const Product p = multiply(kernel, w, packed, x.pointers(), c.rows, columns, c.gap);
    std::vector<float> weights;
    std::vector<double> weight_sizes, input, input_sizes;
    for (int64_t j = columns.begin; j < columns.end; ++j) {
        w.row(j, weights, weight_sizes);
        for (int64_t r = 0; r < c.rows; ++r) {
            x.row(r, input, input_sizes);
            double sum = 0, size = 0;
            for (size_t i = 0; i < input.size(); ++i)
                sum += weights[i] * input[i], size += weight_sizes[i] * input_sizes[i];
            // Each term passes some k + 16 roundings of 2^-24.
            const double bound =
                0x1p-23 * static_cast<double>(c.k + 16) * size + std::numeric_limits<float>::min();
            const float found = p.at(r, j - columns.begin, columns.size());
            if (!(std::fabs(found - sum) <= bound))
                return fmt::format(
                    "weights {}: row {} of the result, column {}: expected {} (within {:.2g}), "
                    "found {}",
                    w.text(), r, j, sum, bound, found);
        }
    }
    return std::nullopt;
}

Verdict bounds(const Kernel& kernel, const KernelCase& c) {
    const KernelMatrix w(kernel, c);
    const GuardedBytes packed = pack_all(kernel, w), zeros = pack_all(kernel, w, std::byte{0});
    for (const GuardedBytes* one : {&packed, &zeros})
        if (const std::string beside = one->written_beside(); !beside.empty())
            return "weights " + w.text() + ": pack() " + beside;
    for (size_t i = 0; i < packed.size(); ++i)
        if (packed.data()[i] != zeros.data()[i])
            return fmt::format(
                "weights {}: pack() left byte {} of {} unwritten, or made it of what was there",
                w.text(), i, packed.size());
    const KernelRows x(kernel, w, c.rows, c.seed + 1);
    const Product p = multiply(kernel, w, packed, x.pointers(), c.rows, {c.n0, c.n1}, c.gap);
    if (!p.beside.empty()) return "weights " + w.text() + ": " + p.beside;
    return std::nullopt;
}

Verdict matches(const Kernel& kernel, const KernelCase& c) { return compare(kernel, c, {0, c.n}); }
Verdict ranges(const Kernel& kernel, const KernelCase& c) {
    return compare(kernel, c, {c.n0, c.n1});
}

Verdict consistent(const Kernel& kernel, const KernelCase& c) {
    if (!kernel.consistent) throw Skip{};
    const KernelMatrix w(kernel, c);
    const KernelRows x(kernel, w, c.rows, c.seed + 1);
    const GuardedBytes packed = pack_all(kernel, w);
    const Product all = multiply(kernel, w, packed, x.pointers(), c.rows, {c.n0, c.n1}, c.gap);
    for (int64_t r = 0; r < c.rows; ++r) {
        const Product alone = multiply(kernel, w, packed, x.pointers() + r, 1, {0, c.n}, 0);
        for (int64_t j = c.n0; j < c.n1; ++j) {
            const float a = all.at(r, j - c.n0, c.n1 - c.n0), b = alone.at(0, j, c.n);
            if (std::memcmp(&a, &b, sizeof a) != 0)
                return fmt::format(
                    "weights {}: row {}, column {}: {:.9g} among {} rows and columns [{}, {}), "
                    "{:.9g} for that row alone and all columns; the kernel says it is consistent",
                    w.text(), r, j, a, c.rows, c.n0, c.n1, b);
        }
    }
    return std::nullopt;
}

Verdict packing(const Kernel& kernel, const KernelCase& c) {
    const KernelMatrix w(kernel, c);
    if (kernel.row_block < 1) return fmt::format("row_block is {}", kernel.row_block);
    const GuardedBytes whole = pack_all(kernel, w);
    Random random(c.seed + 2);
    std::vector<int64_t> cuts{0};
    while (cuts.back() < c.n)
        cuts.push_back(std::min(c.n, cuts.back() + kernel.row_block * random.in(1, 3)));
    std::vector<size_t> order(cuts.size() - 1);
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    for (size_t i = order.size(); i > 1; --i)
        std::swap(order[i - 1],
                  order[static_cast<size_t>(random.in(0, static_cast<int64_t>(i) - 1))]);
    GuardedBytes sliced = memory_for_packed(kernel, w, kPoison);
    for (size_t i : order)
        kernel.pack(sliced.data(), c.n, w.layout(), cuts[i],
                    w.tile(cuts[i], cuts[i + 1] - cuts[i]));
    for (size_t i = 0; i < whole.size(); ++i)
        if (whole.data()[i] != sliced.data()[i])
            return fmt::format(
                "weights {}: packed in {} slices (row_block {}), byte {} of {} is {:#04x}; packed "
                "at once it is {:#04x}",
                w.text(), order.size(), kernel.row_block, i, whole.size(),
                static_cast<int>(sliced.data()[i]), static_cast<int>(whole.data()[i]));
    return std::nullopt;
}

Verdict refusal(const Kernel& kernel, const KernelCase& c) {
    if (!kernel.refusal) throw Skip{};
    const KernelMatrix w(kernel, c);
    quant::PartDescriptor part = w.part();
    for (int64_t n : {int64_t{1}, c.n + 1, c.n + 16, int64_t{4096}}) {
        part.n = n;
        if (const char* why = kernel.refusal(part))
            return fmt::format("weights {}: serves {} rows, refuses {} (\"{}\")", w.text(), c.n, n,
                               why);
    }
    return std::nullopt;
}

std::vector<KernelCase> simpler(const KernelCase& c) {
    std::vector<KernelCase> out;
    const auto with = [&](int64_t KernelCase::*extent, int64_t least) {
        for (int64_t v : smaller_than(c.*extent, least)) {
            KernelCase one = c;
            one.*extent = v;
            one.n1 = std::min(one.n1, one.n);
            one.n0 = std::min(one.n0, one.n1);
            out.push_back(one);
        }
    };
    with(&KernelCase::rows, 1);
    with(&KernelCase::n, 1);
    with(&KernelCase::k, 1);
    with(&KernelCase::n1, c.n0);
    with(&KernelCase::n0, 0);
    with(&KernelCase::gap, 0);
    return out;
}

}  // namespace

const std::vector<KernelLaw>& kernel_laws() {
    static const std::vector<KernelLaw> laws = {
        {"kernel.refusal", refusal, false, false}, {"kernel.bounds", bounds, true, true},
        {"kernel.pack", packing, false, false},    {"kernel.matches", matches, false, true},
        {"kernel.ranges", ranges, true, true},     {"kernel.consistent", consistent, true, false}};
    return laws;
}

Outcome search_kernel(const KernelLaw& law, const Kernel& kernel, const Trial& trial) {
    Search<KernelCase> s;
    s.law = law.name;
    s.make = [&](int64_t index) {
        Random random(trial.seed ^ static_cast<uint64_t>(index) * 0x5851f42d4c957f2du);
        const auto upto = [&](int64_t most) {
            return 1 + most * index / std::max<int64_t>(trial.cases, 1);
        };
        KernelCase c;
        c.n = random.in(1, upto(70)), c.k = random.in(1, upto(index % 8 == 7 ? 1100 : 300));
        c.rows = random.in(1, upto(index % 10 == 9 ? 40 : 17));
        const Interval columns = random_part(c.n, random);
        c.n1 = c.n;
        if (law.ranges) c.n0 = columns.begin, c.n1 = columns.end, c.gap = random.in(0, 2);
        c.seed = random.bits();
        return c;
    };
    s.check = [&](const KernelCase& c) { return law.check(kernel, c); };
    s.text = [&](const KernelCase& c) { return c.text(law.ranges); };
    s.simpler = simpler;
    return search(s, trial);
}

}  // namespace conclave::engine::conformance
