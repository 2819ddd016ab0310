// How code on the lower floors asks for parallel work without knowing who does it. Implemented by
// runtime/exec (oneTBB arenas, one per NUMA node); quant/ and its plugins see only this.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace conclave {

/// A non-owning reference to a callable; valid as long as the callable is.
template <class Signature>
class FunctionRef;
template <class R, class... Args>
class FunctionRef<R(Args...)> {
  public:
    template <class F, class = std::enable_if_t<!std::is_same_v<std::decay_t<F>, FunctionRef>>>
    FunctionRef(F&& f)  // NOLINT: implicit on purpose
        : object_(const_cast<void*>(static_cast<const void*>(&f))),
          call_([](void* o, Args... a) -> R {
              return (*static_cast<std::remove_reference_t<F>*>(o))(static_cast<Args>(a)...);
          }) {}
    R operator()(Args... args) const { return call_(object_, static_cast<Args>(args)...); }

  private:
    void* object_;
    R (*call_)(void*, Args...);
};

class Executor {
  public:
    virtual ~Executor() = default;

    /// NUMA nodes of this rank; weights are split over them and each works on its own part.
    virtual int nodes() const = 0;
    /// Threads of one node, and of all of them.
    virtual int threads(int node) const = 0;
    virtual int threads() const = 0;

    /// Runs task(node, i) for every node and every i in [0, tasks[node]), the tasks of a node on
    /// that node's threads, and returns when all are done. The first exception is rethrown after
    /// that. Not reentrant: a task must not call it, nor any collective.
    virtual void parallel_for(std::span<const int64_t> tasks,
                              FunctionRef<void(int node, int64_t i)> task) = 0;

    /// Runs task(i) for i in [0, tasks), on whatever thread of the rank is free.
    virtual void parallel_for(int64_t tasks, FunctionRef<void(int64_t i)> task) = 0;

    /// Scratch of the calling thread, at least `bytes`, 64-byte aligned, contents undefined; valid
    /// until the thread's next call. Kept and reused: grows to the largest request.
    virtual std::byte* scratch(size_t bytes) = 0;
};

}  // namespace conclave
