#include "runtime/comm/backoff.h"

#include <sched.h>
#include <unistd.h>

#include <thread>

namespace conclave::comm {
namespace {

void spin_once() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
}

}  // namespace

bool Backoff::pause() {
    if (spins_left_ > 0) {
        --spins_left_;
        spin_once();
        return true;
    }
    const auto now = std::chrono::steady_clock::now();
    if (first_yield_ == std::chrono::steady_clock::time_point{}) first_yield_ = now;
    if (now - first_yield_ < (crowded_ ? kYieldCrowded : kYieldAlone))
        sched_yield();
    else
        std::this_thread::sleep_for(kNap);
    return false;
}

bool crowded_host(int ranks) {
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return cpus > 0 && ranks > cpus;
}

}  // namespace conclave::comm
