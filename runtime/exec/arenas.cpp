#include "runtime/exec/arenas.h"

#include <oneapi/tbb/enumerable_thread_specific.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/partitioner.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_scheduler_observer.h>
#include <unistd.h>
#if defined(CONCLAVE_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <new>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/exec/cpu_mask.h"

namespace conclave::exec {
namespace {

// The race detector cannot see how TBB, which is not built with it, hands tasks from thread to
// thread: this file is left out of it (see CMakeLists.txt), and says instead what a parallel loop
// promises: all that the caller did comes before every task, and every task before its return.
class LoopOrder {
  public:
#if defined(CONCLAVE_TSAN)
    void fork() { __tsan_release(&fork_); }
    void enter() { __tsan_acquire(&fork_); }
    void leave() { __tsan_release(&join_); }
    void join() { __tsan_acquire(&join_); }

  private:
    char fork_ = 0, join_ = 0;
#else
    void fork() {}
    void enter() {}
    void leave() {}
    void join() {}
#endif
};

void cpu_relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

/// Keeps the first exception of many threads.
class FirstError {
  public:
    template <class F>
    void guard(F&& work) noexcept {
        try {
            work();
        } catch (...) {
            if (!taken_.exchange(true)) error_ = std::current_exception();
        }
    }
    /// After a join with all threads that may have called guard().
    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }

  private:
    std::atomic<bool> taken_ = false;
    std::exception_ptr error_;
};

/// One call of parallel_for.
struct Loop {
    FunctionRef<void(int, int64_t)> task;
    FirstError error = {};
    LoopOrder order = {};

    void run(int node, int64_t begin, int64_t end) {
        order.enter();
        for (int64_t i = begin; i < end; ++i) error.guard([&] { task(node, i); });
        order.leave();
    }
};

/// Binds TBB's workers to a node while they are in its arena, and gives them back to the CPUs of
/// all nodes when they leave: the workers belong to the process, not to us.
class NodeBinding final : public tbb::task_scheduler_observer {
  public:
    NodeBinding(tbb::task_arena& arena, CpuMask node, CpuMask all)
        : task_scheduler_observer(arena), node_(std::move(node)), all_(std::move(all)) {
        observe(true);
    }
    ~NodeBinding() override {
        observe(false);  // and waits for callbacks under way
        for (const pid_t tid : bound_) all_.apply(tid);
    }

    void on_scheduler_entry(bool is_worker) override {
        if (!is_worker) return;  // callers: CallerBinding
        node_.apply(0);
        const std::lock_guard lock(mutex_);
        bound_.insert(gettid());
    }
    void on_scheduler_exit(bool is_worker) override {
        if (!is_worker) return;
        all_.apply(0);
        const std::lock_guard lock(mutex_);
        bound_.erase(gettid());
    }
    const CpuMask& node() const { return node_; }

  private:
    const CpuMask node_, all_;
    std::mutex mutex_;
    std::set<pid_t> bound_;
};

/// Binds the calling thread to a node for a scope.
class CallerBinding {
  public:
    explicit CallerBinding(const NodeBinding* binding) {
        if (binding == nullptr) return;
        before_ = CpuMask::of_thread(0);
        if (before_->within(binding->node()) || !binding->node().apply(0)) before_.reset();
    }
    ~CallerBinding() {
        if (before_) before_->apply(0);
    }
    CallerBinding(const CallerBinding&) = delete;
    CallerBinding& operator=(const CallerBinding&) = delete;

  private:
    std::optional<CpuMask> before_;
};

/// Grows to the largest request, never shrinks.
class Scratch {
  public:
    std::byte* get(size_t bytes) {
        if (bytes > bytes_) {
            release();
            const size_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
            data_ = static_cast<std::byte*>(
                rounded < bytes ? nullptr
                                : ::operator new(rounded, std::align_val_t(kAlign), std::nothrow));
            if (data_ == nullptr)
                throw Error(ErrorCode::kResource,
                            "cannot allocate " + std::to_string(bytes) + " bytes of scratch");
            bytes_ = rounded;
        }
        return data_;
    }
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { release(); }

  private:
    static constexpr size_t kAlign = 64;  // a cache line, and an AVX-512 register
    void release() {
        ::operator delete(data_, std::align_val_t(kAlign));
        data_ = nullptr;
        bytes_ = 0;
    }
    std::byte* data_ = nullptr;
    size_t bytes_ = 0;
};

/// Threads of each node used: one each, every further one to the node with most CPUs per thread.
std::vector<int> divide_threads(const Topology& topology, int threads) {
    const size_t used = std::min(topology.nodes.size(), static_cast<size_t>(threads));
    std::vector<int> per_node(used, 1);
    for (int left = threads - static_cast<int>(used); left > 0; --left) {
        const auto cpus = [&](size_t n) {
            return std::max<size_t>(1, topology.nodes[n].cpus.size());
        };
        size_t best = 0;
        for (size_t n = 1; n < used; ++n)
            if (cpus(n) * (per_node[best] + 1) > cpus(best) * (per_node[n] + 1)) best = n;
        ++per_node[best];
    }
    return per_node;
}

}  // namespace

/// The thread that calls parallel_for works in the arena of node 0, which keeps a slot for it; the
/// other arenas consist of TBB's workers only. TBB may have fewer workers than the arenas have
/// room for (its pool is one less than the process's CPUs); every task still runs.
struct Arenas::Impl {
    struct Node {
        /// TBB complains on stderr when an arena asks for more workers than its pool has.
        /// With an empty pool it still sends one for what is enqueued, so ask for none then.
        Node(int node_threads, bool has_caller) : threads(node_threads) {
            const auto pool = static_cast<int>(tbb::global_control::active_value(
                                  tbb::global_control::max_allowed_parallelism)) -
                              1;
            const int others = has_caller ? 1 : 0;
            const int workers = std::min(node_threads - others, pool);
            const int reserved = workers == 0 ? 1 : others;
            arena.initialize(workers + reserved, static_cast<unsigned>(reserved));
        }
        const int threads;
        tbb::task_arena arena;
        std::optional<NodeBinding> binding;  // after the arena: it must go first
    };

    Impl(const Topology& topology, int threads) {
        CONCLAVE_CHECK(threads >= 1 && !topology.nodes.empty());
        per_node = divide_threads(topology, threads);
        std::vector<int> all;
        for (const NumaNode& n : topology.nodes)
            all.insert(all.end(), n.cpus.begin(), n.cpus.end());
        for (size_t n = 0; n < per_node.size(); ++n) {
            Node& node = *nodes.emplace_back(std::make_unique<Node>(per_node[n], n == 0));
            if (topology.bind && topology.nodes.size() > 1)
                node.binding.emplace(node.arena, CpuMask(topology.nodes[n].cpus), CpuMask(all));
        }
    }

    /// All tasks of a node, by a thread that is in its arena.
    static void run_inside(int n, const Node& node, int64_t tasks, Loop& loop) {
        // Halves of the range are there to be stolen, down to a 16th of a thread's share: fine
        // enough to even out the end, and few enough that tasks of a microsecond still pay.
        const int64_t grain = std::max<int64_t>(1, tasks / (16 * node.threads));
        tbb::parallel_for(
            tbb::blocked_range<int64_t>(0, tasks, static_cast<size_t>(grain)),
            [&](const tbb::blocked_range<int64_t>& r) { loop.run(n, r.begin(), r.end()); },
            tbb::simple_partitioner());
    }

    /// Node 0's tasks, by the calling thread and the workers that join it.
    void run_callers_node(int64_t tasks, Loop& loop) {
        if (tasks == 0) return;
        Node& node = *nodes[0];
        const CallerBinding bound(node.binding ? &*node.binding : nullptr);
        if (node.threads == 1 || tasks == 1) return loop.run(0, 0, tasks);
        loop.error.guard([&] { node.arena.execute([&] { run_inside(0, node, tasks, loop); }); });
    }

    void start_other_node(int n, int64_t tasks, Loop& loop) {
        pending->fetch_add(1, std::memory_order_relaxed);
        try {
            nodes[n]->arena.enqueue([this, n, tasks, &loop, left = pending] {
                loop.error.guard([&] { run_inside(n, *nodes[n], tasks, loop); });
                // From here on only `left` is sure to exist.
                if (left->fetch_sub(1, std::memory_order_acq_rel) == 1) left->notify_all();
            });
        } catch (...) {
            pending->fetch_sub(1, std::memory_order_relaxed);
            throw;
        }
    }

    void wait_for_other_nodes() {
        // Nodes have equal shares, so the wait is short: poll for some tens of microseconds, about
        // what a wake-up by the kernel takes, then sleep.
        for (int polls = 0; polls < 1000; ++polls) {
            if (pending->load(std::memory_order_acquire) == 0) return;
            cpu_relax();
        }
        for (int left; (left = pending->load(std::memory_order_acquire)) != 0;)
            pending->wait(left, std::memory_order_acquire);
    }

    std::vector<int> per_node;
    std::vector<std::unique_ptr<Node>> nodes;
    /// Nodes other than the caller's that still work. Shared: the last one's worker may be about to
    /// notify when the caller has already seen 0 and gone.
    const std::shared_ptr<std::atomic<int>> pending = std::make_shared<std::atomic<int>>(0);
    tbb::enumerable_thread_specific<Scratch> scratch;
};

Arenas::Arenas(const Topology& topology, int threads)
    : impl_(std::make_unique<Impl>(topology, threads)) {}
Arenas::~Arenas() = default;

int Arenas::nodes() const { return static_cast<int>(impl_->nodes.size()); }
int Arenas::threads(int node) const { return impl_->per_node.at(static_cast<size_t>(node)); }
int Arenas::threads() const {
    return std::accumulate(impl_->per_node.begin(), impl_->per_node.end(), 0);
}

void Arenas::parallel_for(std::span<const int64_t> tasks, FunctionRef<void(int, int64_t)> task) {
    CONCLAVE_CHECK(tasks.size() == impl_->nodes.size());
    Loop loop{task};
    loop.order.fork();
    for (int n = 1; n < nodes(); ++n)
        if (tasks[n] > 0) loop.error.guard([&] { impl_->start_other_node(n, tasks[n], loop); });
    impl_->run_callers_node(tasks[0], loop);
    impl_->wait_for_other_nodes();
    loop.order.join();
    loop.error.rethrow();
}

void Arenas::parallel_for(int64_t tasks, FunctionRef<void(int64_t)> task) {
    if (nodes() == 1) return parallel_for(std::span(&tasks, 1), [&](int, int64_t i) { task(i); });
    // One loop per thread; whichever is free takes the next task.
    std::atomic<int64_t> next = 0;
    FirstError error;
    std::vector<int64_t> loops(impl_->per_node.begin(), impl_->per_node.end());
    parallel_for(loops, [&](int, int64_t) {
        for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
            error.guard([&] { task(i); });
    });
    error.rethrow();
}

std::byte* Arenas::scratch(size_t bytes) { return impl_->scratch.local().get(bytes); }

}  // namespace conclave::exec
