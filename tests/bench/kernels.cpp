// How near the matrix kernels come to what one core of this machine can do: to its read bandwidth
// with few rows, to its rate of f32 FMAs, or of int8 or bf16 products, with many.
// Usage: bench_kernels [--smoke] [name part]
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "quant/kernel.h"
#include "runtime/base/half.h"
#include "tests/bench/machine.h"

namespace conclave::quant {
namespace {

constexpr int64_t kN = 768, kK = 2048;

struct Options {
    bool smoke = false;
    std::string filter;
};

/// Anonymous memory in 2 MiB pages where the system grants them.
class BigPages {
  public:
    explicit BigPages(size_t bytes) : bytes_((bytes + kPage) / kPage * kPage) {
        mapped_ = static_cast<std::byte*>(mmap(nullptr, bytes_ + kPage, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (mapped_ == MAP_FAILED) throw std::bad_alloc();
        const auto address = reinterpret_cast<uintptr_t>(mapped_);
        data_ = mapped_ + ((address + kPage - 1) / kPage * kPage - address);
        madvise(data_, bytes_, MADV_HUGEPAGE);
    }
    BigPages(const BigPages&) = delete;
    ~BigPages() { munmap(mapped_, bytes_ + kPage); }
    std::byte* data() { return data_; }

  private:
    static constexpr size_t kPage = 2 << 20;
    size_t bytes_;
    std::byte* mapped_;
    std::byte* data_;
};

/// CPU time of this thread: a busy machine takes it away, but does not lengthen it.
double seconds_now() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// The best of several runs, in seconds: what the machine can do when left alone.
template <class Body>
double best_of(int runs, Body body) {
    double best = 1e30;
    for (int i = 0; i < runs; ++i) {
        const double start = seconds_now();
        body();
        best = std::min(best, seconds_now() - start);
    }
    return best;
}

struct Limits {
    double read;   ///< bytes per second
    double flops;  ///< of the widest instruction set
    double int8;   ///< operations per second
    double bf16;   ///< 0: the CPU has no such products

    double peak(XType x) const {
        return x == XType::kI8 || x == XType::kI8Row ? int8
               : x == XType::kBF16 && bf16 > 0       ? bf16
                                                     : flops;
    }
};

Limits measure_limits(const Options& options, CpuFeatures cpu) {
    const size_t bytes = options.smoke ? size_t{4} << 20 : size_t{256} << 20;
    BigPages memory(bytes);
    std::memset(memory.data(), 1, bytes);
    volatile uint64_t keep = 0;
    const MachineProbe probe = machine_probe(cpu);
    const double read =
        best_of(options.smoke ? 1 : 20, [&] { keep = keep + probe.read(memory.data(), bytes); });
    const auto rate = [&](const MachinePeak& peak) {
        const int64_t rounds = options.smoke ? 1000 : 2000000;
        const double seconds =
            best_of(options.smoke ? 1 : 50, [&] { keep = keep + (peak.run(rounds) > 0); });
        return static_cast<double>(rounds) * static_cast<double>(peak.ops_per_round) / seconds;
    };
    return {static_cast<double>(bytes) / read, rate(probe.f32), rate(probe.int8),
            probe.bf16.run ? rate(probe.bf16) : 0};
}

struct Shape {
    int64_t rows;
    size_t working_set;  ///< bytes of matrices that are cycled through
};

/// What a kernel is measured with: codes that are numbers, or codes in groups with scales.
struct Case {
    const Kernel* kernel;
    int64_t group = 0;

    MatrixLayout layout() const {
        if (!is_scaled(kernel->code)) return {kK, {kernel->code}, nullptr};
        Encoding e;
        e.code = kernel->code;
        e.bits = code_bits(kernel->code);
        e.scale = group == 16 ? FactorType::kE4M3 : FactorType::kF16;
        e.zero_point = is_integer(e.code) ? 1 << (e.bits - 1) : 0;
        if (e.code == CodeType::kT4) e.levels = fp4_codebook();
        e.group = group;
        return {kK, e, std::make_shared<Grouping>(uniform_grouping({0, kK}, group))};
    }
    std::string name() const {
        return kernel->name + (group > 0 ? " g" + std::to_string(group) : std::string());
    }
};

/// A matrix of random codes.
void fill(const Case& c, const MatrixLayout& layout, std::byte* packed) {
    std::mt19937 random(1);
    const bool scaled = is_scaled(c.kernel->code);
    const int64_t code_bytes = scaled ? 1 : code_bits(c.kernel->code) / 8;
    std::vector<std::byte> codes(static_cast<size_t>(kN * kK * code_bytes));
    for (int64_t i = 0; i < kN * kK; ++i) {
        const float v = static_cast<float>(random() % 1000) * 1e-3f;
        const uint16_t half = c.kernel->code == CodeType::kF16 ? f32_to_f16(v) : f32_to_bf16(v);
        const auto whole =
            static_cast<uint8_t>(scaled ? random() >> (32 - layout.encoding.bits) : 0);
        std::byte* to = codes.data() + i * code_bytes;
        if (code_bytes == 4)
            std::memcpy(to, &v, 4);
        else
            std::memcpy(to, code_bytes == 2 ? static_cast<const void*>(&half) : &whole, code_bytes);
    }
    CodeTile tile;
    tile.codes = codes.data();
    tile.row_bytes = kK * code_bytes;
    tile.rows = kN;
    tile.cols = kK;
    tile.factor_stride = layout.groups ? static_cast<int64_t>(layout.groups->runs.size()) : 0;
    const std::vector<float> scales(static_cast<size_t>(kN * tile.factor_stride), 0x1p-6f);
    tile.scales = scales.data();
    c.kernel->pack(packed, kN, layout, 0, tile);
}

/// Rows of x as the kernel reads them.
std::vector<const void*> inputs(const Kernel& kernel, const MatrixLayout& layout, int64_t rows,
                                std::byte* memory, int64_t row_bytes) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    std::vector<const void*> x;
    for (int64_t r = 0; r < rows; ++r) {
        std::byte* row = memory + r * row_bytes;
        for (int64_t i = 0; i < kK; ++i) {
            const float v = normal(random);
            const uint16_t half = f32_to_bf16(v);
            const auto code = static_cast<int8_t>(random() % 255 - 127);
            if (kernel.x == XType::kBF16)
                std::memcpy(row + 2 * i, &half, 2);
            else if (kernel.x == XType::kF32)
                std::memcpy(row + 4 * i, &v, 4);
            else
                row[i] = static_cast<std::byte>(code);
        }
        if (kernel.x == XType::kI8) {
            const std::vector<float> ones(layout.groups->blocks.size() * 2, 1.0f);
            std::memcpy(row + int8_scales_at(*layout.groups), ones.data(), ones.size() * 4);
        }
        if (kernel.x == XType::kI8Row) {  // a scale of 1, no zero; no sums that are right
            const float head[2] = {1, 0};
            std::memcpy(row + int8_scales_at(*layout.groups), head, sizeof head);
        }
        x.push_back(row);
    }
    return x;
}

void measure(const Case& c, const Shape& shape, const Limits& limits, bool smoke) {
    const Kernel& kernel = *c.kernel;
    const MatrixLayout layout = c.layout();
    const size_t matrix = kernel.packed_bytes(kN, layout);
    const auto count = static_cast<int64_t>(std::max<size_t>(1, shape.working_set / matrix));
    BigPages memory(matrix * static_cast<size_t>(count));
    fill(c, layout, memory.data());
    for (int64_t m = 1; m < count; ++m)
        std::memcpy(memory.data() + m * static_cast<int64_t>(matrix), memory.data(), matrix);
    const int64_t row_bytes = kernel.x == XType::kI8      ? int8_row_bytes(*layout.groups)
                              : kernel.x == XType::kI8Row ? int8_whole_row_bytes(*layout.groups)
                                                          : kK * 4;
    BigPages x_memory(static_cast<size_t>(shape.rows * row_bytes));
    const auto x = inputs(kernel, layout, shape.rows, x_memory.data(), row_bytes);
    BigPages scratch(kernel.scratch_bytes(layout));
    std::vector<float> out(static_cast<size_t>(shape.rows * kN));
    const auto cycle = [&] {
        for (int64_t m = 0; m < count; ++m)
            kernel.run({memory.data() + m * static_cast<int64_t>(matrix), kN, &layout, x.data(),
                        shape.rows, 0, kN, out.data(), kN, scratch.data()});
    };
    const double seconds = best_of(smoke ? 1 : 20, cycle);
    const double bytes = static_cast<double>(matrix) * static_cast<double>(count) / seconds;
    const double flops = 2.0 * kN * kK * static_cast<double>(shape.rows * count) / seconds;
    std::printf("%-32s %5lld %9.2f %6.0f%% %9.1f %6.0f%%\n", c.name().c_str(),
                static_cast<long long>(shape.rows), bytes / 1e9, 100 * bytes / limits.read,
                flops / 1e9, 100 * flops / limits.peak(kernel.x));
    std::fflush(stdout);
}

int bench(const Options& options) {
    const CpuFeatures cpu = cpu_from_environment();
    const Limits limits = measure_limits(options, cpu);
    std::printf("%s, one thread: reads %.2f GB/s, %.1f GFLOP/s (f32 fma), %.1f GOP/s (int8)",
                cpu_model_name().c_str(), limits.read / 1e9, limits.flops / 1e9, limits.int8 / 1e9);
    if (limits.bf16 > 0) std::printf(", %.1f GFLOP/s (bf16)", limits.bf16 / 1e9);
    std::printf("\n");
    std::printf("n = %lld, k = %lld; GOP/s are a multiplication and an addition each\n",
                static_cast<long long>(kN), static_cast<long long>(kK));
    std::printf("%-32s %5s %9s %7s %9s %7s\n", "kernel", "rows", "GB/s", "of read", "GOP/s",
                "of peak");
    std::vector<Case> cases;
    const KernelRegistry registry = KernelRegistry::built_in();
    for (const Kernel* kernel : registry.kernels()) {
        if (!cpu.has(kernel->isa)) continue;
        if (kernel->name == std::string("panel_bf16_bf16_ref")) continue;  // a definition
        if (kernel->code == CodeType::kT4) cases.push_back({kernel, 16});
        if (code_bits(kernel->code) == 4) cases.push_back({kernel, 32});
        const bool whole_rows = !is_scaled(kernel->code) || kernel->x == XType::kI8Row;
        cases.push_back({kernel, whole_rows ? 0 : 128});
    }
    for (const Case& c : cases) {
        if (c.name().find(options.filter) == std::string::npos) continue;
        const size_t large = options.smoke ? 1 : size_t{200} << 20;  // beyond any L3
        for (int64_t rows : {1, 4, 8, 12, 16, 32, 64, 128, 512}) {
            if (options.smoke && rows > 16) continue;
            measure(c, {rows, rows <= 16 ? large : 1}, limits, options.smoke);
        }
    }
    return 0;
}

}  // namespace
}  // namespace conclave::quant

int main(int argc, char** argv) {
    conclave::quant::Options options;
    for (int i = 1; i < argc; ++i) {
        if (std::string(argv[i]) == "--smoke")
            options.smoke = true;
        else
            options.filter = argv[i];
    }
    return conclave::quant::bench(options);
}
