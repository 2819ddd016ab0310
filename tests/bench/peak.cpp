// peak: how many products and sums per second this machine does in registers, by type of number,
// with one thread and with all that this process may use: medians. The ceiling that prefill speeds
// are compared with; run it in the same minute. And how two CPUs are placed (placement.h).
// Usage: bench_peak [--smoke] [--json] [--placement], the last for nothing else.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/bench/machine.h"
#include "tests/bench/placement.h"

namespace conclave {
namespace {

struct Options {
    bool smoke = false, json = false, placement_only = false;
};

/// Of so many runs, in operations per second.
double median(const MachinePeak& peak, const std::vector<int>& cpus, bool smoke) {
    const int64_t rounds = smoke ? 1000 : 20000000;
    std::vector<double> rates;
    for (int i = 0; i < (smoke ? 1 : 7); ++i) rates.push_back(peak_rate(peak, cpus, rounds));
    std::nth_element(rates.begin(), rates.begin() + rates.size() / 2, rates.end());
    return rates[rates.size() / 2];
}

void measure(const char* type, const MachinePeak& peak, const Options& o) {
    if (!peak.run) {
        if (!o.json) std::printf("%-6s %12s\n", type, "-");
        return;
    }
    const std::vector<int> all = allowed_cpus();
    const double one = median(peak, {all.front()}, o.smoke), every = median(peak, all, o.smoke);
    if (o.json)
        std::printf(", \"%s\": [%.4g, %.4g]", type, one, every);
    else
        std::printf("%-6s %12.1f %12.1f\n", type, one / 1e9, every / 1e9);
    std::fflush(stdout);
}

void run(const Options& o) {
    const MachineProbe probe = machine_probe(cpu_from_environment());
    const Placement p = placement(probe.int8);
    if (o.json)
        std::printf("{\"placement\": \"%c\", \"line_ns\": %.1f", p.label, p.line_ns);
    else if (p.line_ns > 0)
        std::printf("placement %c: a cache line takes %.0f ns\n", p.label, p.line_ns);
    if (!o.placement_only) {
        if (!o.json) std::printf("%-6s %12s %12s  GOP/s\n", "", "1 thread", "all threads");
        measure("int8", probe.int8, o);
        measure("bf16", probe.bf16, o);
        measure("f32", probe.f32, o);
    }
    if (o.json) std::printf("}\n");
}

}  // namespace
}  // namespace conclave

int main(int argc, char** argv) {
    conclave::Options o;
    for (int i = 1; i < argc; ++i) {
        const std::string flag = argv[i];
        bool* const set = flag == "--smoke"       ? &o.smoke
                          : flag == "--json"      ? &o.json
                          : flag == "--placement" ? &o.placement_only
                                                  : nullptr;
        if (!set) {
            std::fprintf(stderr, "usage: bench_peak [--smoke] [--json] [--placement]\n");
            return 2;
        }
        *set = true;
    }
    conclave::run(o);
}
