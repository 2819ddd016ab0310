// How a waiter passes its time: it spins for a few microseconds, then offers its CPU to whoever
// wants it, then sleeps in short naps.
#pragma once
#include <chrono>

namespace conclave::comm {

class Backoff {
  public:
    /// `crowded`: more ranks than CPUs, so that spinning would only keep the awaited rank off.
    explicit Backoff(bool crowded) : crowded_(crowded), spins_left_(crowded ? 0 : kSpins) {}

    /// Waits a little. True if that was a mere spin, after which looking at anything but the
    /// awaited flag is not worth it yet.
    bool pause();

  private:
    // A pause instruction is 10 to 50 ns: 1 to 3 us, what an even step needs to come together; more
    // would hurt where the awaited rank waits for this CPU.
    static constexpr int kSpins = 64;
    // Yields cost a microsecond each but wake at once; naps wake 60 us late but leave the CPU, and
    // the scheduler's fairness, to the ranks that compute.
    static constexpr std::chrono::microseconds kYieldAlone{2000}, kYieldCrowded{200}, kNap{20};

    bool crowded_;
    int spins_left_;
    std::chrono::steady_clock::time_point first_yield_{};
};

/// Whether `ranks` waiters on this host are more than its CPUs.
bool crowded_host(int ranks);

}  // namespace conclave::comm
