// peak: how many products and sums per second this machine does in registers, by type of number,
// with one thread and with all that this process may use: medians. The ceiling that prefill speeds
// are compared with; run it in the same minute. Usage: bench_peak [--smoke]
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/machine.h"

namespace conclave {
namespace {

std::vector<int> allowed_cpus() {
    cpu_set_t set;
    std::vector<int> cpus;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return {0};
    for (int c = 0; c < CPU_SETSIZE; ++c)
        if (CPU_ISSET(c, &set)) cpus.push_back(c);
    return cpus;
}

/// Operations per second of threads, one on each CPU, that begin together.
double rate(const MachinePeak& peak, const std::vector<int>& cpus, int64_t rounds) {
    using Clock = std::chrono::steady_clock;
    std::atomic<size_t> ready{0};
    std::vector<std::thread> threads;
    std::vector<Clock::time_point> begin(cpus.size()), end(cpus.size());
    for (size_t i = 0; i < cpus.size(); ++i)
        threads.emplace_back([&, i] {
            cpu_set_t set;
            CPU_ZERO(&set);
            CPU_SET(cpus[i], &set);
            sched_setaffinity(0, sizeof set, &set);
            volatile float keep = peak.run(rounds / 100 + 1);  // the clock settles
            for (ready.fetch_add(1); ready.load() < cpus.size();) std::this_thread::yield();
            begin[i] = Clock::now();
            keep = keep + peak.run(rounds);
            end[i] = Clock::now();
        });
    for (std::thread& t : threads) t.join();
    const std::chrono::duration<double> seconds =
        *std::max_element(end.begin(), end.end()) - *std::min_element(begin.begin(), begin.end());
    return static_cast<double>(peak.ops_per_round * rounds) * static_cast<double>(cpus.size()) /
           seconds.count();
}

void print(const char* type, const MachinePeak& peak, bool smoke) {
    if (!peak.run) {
        std::printf("%-6s %12s\n", type, "-");
        return;
    }
    const int64_t rounds = smoke ? 1000 : 20000000;
    const std::vector<int> all = allowed_cpus();
    const auto median = [&](const std::vector<int>& cpus) {
        std::vector<double> rates;
        for (int i = 0; i < (smoke ? 1 : 7); ++i) rates.push_back(rate(peak, cpus, rounds));
        std::nth_element(rates.begin(), rates.begin() + rates.size() / 2, rates.end());
        return rates[rates.size() / 2] / 1e9;
    };
    std::printf("%-6s %12.1f %12.1f\n", type, median({all.front()}), median(all));
    std::fflush(stdout);
}

}  // namespace
}  // namespace conclave

int main(int argc, char** argv) {
    const bool smoke = argc > 1 && std::string(argv[1]) == "--smoke";
    const auto probe = conclave::machine_probe(conclave::cpu_from_environment());
    std::printf("%-6s %12s %12s  GOP/s\n", "", "1 thread", "all threads");
    conclave::print("int8", probe.int8, smoke);
    conclave::print("bf16", probe.bf16, smoke);
    conclave::print("f32", probe.f32, smoke);
}
