// Affinity masks of any size, as the system calls want them.
#pragma once
#include <sys/types.h>

#include <vector>

namespace conclave::exec {

class CpuMask {
  public:
    explicit CpuMask(const std::vector<int>& cpus);
    /// Of a thread, 0 being the calling one. Empty if the system does not tell.
    static CpuMask of_thread(pid_t tid);

    std::vector<int> cpus() const;  ///< ascending
    bool empty() const { return words_.empty(); }
    bool within(const CpuMask& other) const;
    /// Binds a thread to it. False if the system refuses: that costs speed, not correctness.
    bool apply(pid_t tid) const;

  private:
    CpuMask() = default;
    std::vector<unsigned long> words_;  ///< bit c: CPU c; no zero words at the end
};

}  // namespace conclave::exec
