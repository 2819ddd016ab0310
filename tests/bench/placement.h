// Where the host has put the two CPUs of this process at this moment: it may move them while one
// measures, and two threads read memory at very different rates then.
#pragma once
#include <vector>

#include "tests/bench/machine.h"

namespace conclave {

struct Placement {
    /// 'S': two threads of one core; 'B': two cores that share a cache; 'C': two that do not; '1':
    /// one CPU; 'N': more than two, of which nothing is said.
    char label = '1';
    double line_ns = 0;  ///< a cache line's way from one CPU to the other
};

std::vector<int> allowed_cpus();
/// Operations per second of threads, one on each CPU, that begin together.
double peak_rate(const MachinePeak& peak, const std::vector<int>& cpus, int64_t rounds);
/// Takes some 20 ms.
Placement placement(const MachinePeak& peak);

}  // namespace conclave
