// How near the matrix kernels come to what one core of this machine can do: to its read bandwidth
// with few rows, to its f32 FMA rate with many. Usage: bench_kernels [--smoke] [name part]
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
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
};

Limits measure_limits(const Options& options, CpuFeatures cpu) {
    const size_t bytes = options.smoke ? size_t{4} << 20 : size_t{256} << 20;
    BigPages memory(bytes);
    std::memset(memory.data(), 1, bytes);
    volatile uint64_t keep = 0;
    const MachineProbe probe = machine_probe(cpu);
    const double read =
        best_of(options.smoke ? 1 : 20, [&] { keep = keep + probe.read(memory.data(), bytes); });
    const int64_t rounds = options.smoke ? 1000 : 2000000;
    const double fma =
        best_of(options.smoke ? 1 : 50, [&] { keep = keep + (probe.fma(rounds) > 0); });
    return {static_cast<double>(bytes) / read,
            static_cast<double>(rounds) * static_cast<double>(probe.flops_per_round) / fma};
}

struct Shape {
    int64_t rows;
    size_t working_set;  ///< bytes of matrices that are cycled through
};

void measure(const Kernel& kernel, const Shape& shape, const Limits& limits, bool smoke) {
    const MatrixLayout layout{kK, {kernel.code}, nullptr};
    const size_t matrix = kernel.packed_bytes(kN, layout);
    const auto count = static_cast<int64_t>(std::max<size_t>(1, shape.working_set / matrix));
    BigPages memory(matrix * static_cast<size_t>(count));
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < matrix * static_cast<size_t>(count); i += 4) {
        const float v = static_cast<float>(random() % 1000) * 1e-3f;  // valid in all code types
        const uint32_t half = kernel.code == CodeType::kF16 ? f32_to_f16(v) : f32_to_bf16(v);
        const uint32_t code =
            kernel.code == CodeType::kF32 ? std::bit_cast<uint32_t>(v) : half * 65537;
        std::memcpy(memory.data() + i, &code, 4);
    }
    BigPages x_memory(static_cast<size_t>(shape.rows * kK) * 4);
    std::vector<const void*> x;
    for (int64_t r = 0; r < shape.rows; ++r) {
        auto* row = x_memory.data() + r * kK * 4;
        for (int64_t i = 0; i < kK; ++i) {
            const float v = normal(random);
            const uint16_t half = f32_to_bf16(v);
            if (kernel.x == XType::kBF16)
                std::memcpy(row + 2 * i, &half, 2);
            else
                std::memcpy(row + 4 * i, &v, 4);
        }
        x.push_back(row);
    }
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
    std::printf("%-28s %5lld %9.2f %6.0f%% %9.1f %6.0f%%\n", kernel.name,
                static_cast<long long>(shape.rows), bytes / 1e9, 100 * bytes / limits.read,
                flops / 1e9, 100 * flops / limits.flops);
    std::fflush(stdout);
}

int bench(const Options& options) {
    const CpuFeatures cpu = cpu_from_environment();
    const Limits limits = measure_limits(options, cpu);
    std::printf("%s, one thread: reads %.2f GB/s, %.1f GFLOP/s (f32 fma)\n",
                cpu_model_name().c_str(), limits.read / 1e9, limits.flops / 1e9);
    std::printf("n = %lld, k = %lld\n%-28s %5s %9s %7s %9s %7s\n", static_cast<long long>(kN),
                static_cast<long long>(kK), "kernel", "rows", "GB/s", "of read", "GFLOP/s",
                "of fma");
    const KernelRegistry registry = KernelRegistry::built_in();
    for (const Kernel* kernel : registry.kernels()) {
        if (!cpu.has(kernel->isa) ||
            std::string(kernel->name).find(options.filter) == std::string::npos)
            continue;
        if (kernel->name == std::string("panel_bf16_bf16_ref")) continue;  // a definition
        const size_t large = options.smoke ? 1 : size_t{200} << 20;        // beyond any L3
        for (int64_t rows : {1, 4, 8, 12, 16, 32, 48, 128, 512}) {
            if (options.smoke && rows > 16) continue;
            measure(*kernel, {rows, rows <= 16 ? large : 1}, limits, options.smoke);
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
