// membw: how fast memory is read in 2 MiB pages, by one thread and by all that this process may
// use. The floor that decode speeds are compared with; run it in the same minute.
#include <cstdio>

#include "runtime/api/conclave.hpp"

int main() {
    conclave::EngineOptions options;
    options.threads = 1;
    const double one = conclave::read_bandwidth(options, conclave::Comm::self());
    options.threads = 0;
    const double all = conclave::read_bandwidth(options, conclave::Comm::self());
    std::printf("1 thread     %6.1f GB/s\nall threads  %6.1f GB/s\n", one / 1e9, all / 1e9);
    return one > 0 && all > 0 ? 0 : 1;
}
