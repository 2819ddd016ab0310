#include "tests/bench/placement.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

namespace conclave {
namespace {

using Clock = std::chrono::steady_clock;

void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

/// Nanoseconds that a written cache line takes from one CPU to the other.
double line_nanoseconds(int a, int b) {
    constexpr int kTurns = 20000;
    alignas(128) std::atomic<int> turn{0};
    const auto player = [&](int cpu, int first) {
        pin(cpu);
        for (int i = 0; i < kTurns; ++i) {
            while (turn.load(std::memory_order_acquire) != 2 * i + first) {
            }
            turn.store(2 * i + first + 1, std::memory_order_release);
        }
    };
    const auto begin = Clock::now();
    std::thread other(player, b, 1);
    std::thread(player, a, 0).join();
    other.join();
    return std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / (2.0 * kTurns);
}

}  // namespace

std::vector<int> allowed_cpus() {
    cpu_set_t set;
    std::vector<int> cpus;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return {0};
    for (int c = 0; c < CPU_SETSIZE; ++c)
        if (CPU_ISSET(c, &set)) cpus.push_back(c);
    return cpus;
}

double peak_rate(const MachinePeak& peak, const std::vector<int>& cpus, int64_t rounds) {
    std::atomic<size_t> ready{0};
    std::vector<std::thread> threads;
    std::vector<Clock::time_point> begin(cpus.size()), end(cpus.size());
    for (size_t i = 0; i < cpus.size(); ++i)
        threads.emplace_back([&, i] {
            pin(cpus[i]);
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

Placement placement(const MachinePeak& peak) {
    // On Zen 4 and Zen 5 a line takes 27 to 30 ns within a core complex and 120 to 170 ns between
    // two; threads of one core together do little more than one.
    constexpr double kFarNanoseconds = 100, kTwoCores = 1.35;
    constexpr int64_t kRounds = 500000;
    const std::vector<int> cpus = allowed_cpus();
    if (cpus.size() != 2) return {cpus.size() == 1 ? '1' : 'N', 0};
    const double line = line_nanoseconds(cpus[0], cpus[1]);
    if (line > kFarNanoseconds) return {'C', line};
    const double one = peak_rate(peak, {cpus[0]}, kRounds), both = peak_rate(peak, cpus, kRounds);
    return {both < kTwoCores * one ? 'S' : 'B', line};
}

}  // namespace conclave
