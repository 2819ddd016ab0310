// The Executor of a rank: one oneTBB arena per NUMA node, its threads bound to that node's CPUs.
// The thread that calls parallel_for takes part in the work.
#pragma once
#include <memory>

#include "runtime/base/executor.h"
#include "runtime/exec/topology.h"

namespace conclave::exec {

class Arenas final : public Executor {
  public:
    /// `threads` over all nodes (divided over them by their CPUs, at least one each, so that a
    /// rank with fewer threads than nodes uses only the first nodes).
    Arenas(const Topology& topology, int threads);
    ~Arenas() override;

    int nodes() const override;
    int threads(int node) const override;
    int threads() const override;
    void parallel_for(std::span<const int64_t> tasks,
                      FunctionRef<void(int, int64_t)> task) override;
    void parallel_for(int64_t tasks, FunctionRef<void(int64_t)> task) override;
    std::byte* scratch(size_t bytes) override;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::exec
