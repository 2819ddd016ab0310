// An Executor that does all work on the calling thread, for what is small or must not start
// threads.
#pragma once
#include "runtime/base/executor.h"

namespace conclave {

/// One node, one thread. Has no scratch: scratch() gives null.
class SerialExecutor final : public Executor {
  public:
    int nodes() const override { return 1; }
    int threads(int) const override { return 1; }
    int threads() const override { return 1; }
    void parallel_for(std::span<const int64_t> tasks,
                      FunctionRef<void(int, int64_t)> task) override {
        for (int64_t i = 0; i < tasks[0]; ++i) task(0, i);
    }
    void parallel_for(int64_t tasks, FunctionRef<void(int64_t)> task) override {
        for (int64_t i = 0; i < tasks; ++i) task(i);
    }
    std::byte* scratch(size_t) override { return nullptr; }
};

}  // namespace conclave
