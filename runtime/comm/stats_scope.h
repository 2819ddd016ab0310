// Adds one collective to the statistics of its communicator.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "runtime/comm/communicator.h"

namespace conclave::comm {

class StatsScope {
  public:
    StatsScope(CommStats& stats, size_t bytes) : stats_(stats) {
        ++stats.calls;
        stats.bytes += bytes;
    }
    ~StatsScope() {
        const auto spent = std::chrono::steady_clock::now() - start_;
        stats_.nanoseconds += static_cast<uint64_t>(
            std::chrono::duration_cast<std::chrono::nanoseconds>(spent).count());
    }
    StatsScope(const StatsScope&) = delete;
    StatsScope& operator=(const StatsScope&) = delete;

  private:
    CommStats& stats_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace conclave::comm
