#include "runtime/comm/local_communicator.h"

#include <unistd.h>

#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <numeric>
#include <utility>

#include "runtime/comm/shared_segment.h"
#include "runtime/comm/split_group.h"
#include "runtime/comm/stats_scope.h"

namespace conclave::comm {
namespace {

struct AlignedDelete {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{4096}); }
};

/// What the ranks of one communicator share; lives as long as any of them.
class LocalWorld {
  public:
    LocalWorld(int ranks, size_t slot_bytes, int sharing)
        : slot_bytes_(slot_bytes),
          sharing_(sharing),
          region_(static_cast<std::byte*>(::operator new (
              SharedSegment::region_bytes(ranks, slot_bytes), std::align_val_t{4096}))) {
        std::memset(region_.get(), 0, SharedSegment::head_bytes(ranks));
    }

    std::byte* region() const { return region_.get(); }
    size_t slot_bytes() const { return slot_bytes_; }
    /// Ranks on the CPUs that these run on: of all worlds that this one was split from.
    int sharing() const { return sharing_; }

    /// The world of group `index` of the `split`-th split: made by the first of its ranks to ask,
    /// forgotten here when the last has it.
    std::shared_ptr<LocalWorld> child(uint64_t split, int index, int ranks) {
        const std::lock_guard lock(mutex_);
        Child& child = children_[{split, index}];
        if (!child.world) child.world = std::make_shared<LocalWorld>(ranks, slot_bytes_, sharing_);
        std::shared_ptr<LocalWorld> world = child.world;
        if (++child.taken == ranks) children_.erase({split, index});
        return world;
    }

  private:
    struct Child {
        std::shared_ptr<LocalWorld> world;
        int taken = 0;
    };
    size_t slot_bytes_;
    int sharing_;
    std::unique_ptr<std::byte, AlignedDelete> region_;
    std::mutex mutex_;
    std::map<std::pair<uint64_t, int>, Child> children_;
};

std::string host_name() {
    char name[256] = {};
    gethostname(name, sizeof name - 1);
    return name;
}

class LocalCommunicator final : public Communicator {
  public:
    LocalCommunicator(std::shared_ptr<LocalWorld> world, int rank, int ranks, const char* backend)
        : world_(std::move(world)),
          backend_(backend),
          host_(host_name()),
          segment_(world_->region(),
                   {rank, numbers(ranks), host_, world_->slot_bytes(), world_->sharing()}) {
        segment_.set_poll([this] { poll_abort(); });
    }

    int rank() const override { return segment_.rank(); }
    int size() const override { return segment_.ranks(); }
    const char* backend() const override { return backend_; }
    std::string host() const override { return host_; }
    int local_rank() const override { return rank(); }
    int local_size() const override { return size(); }
    int hosts() const override { return 1; }

    void barrier() override {
        const StatsScope scope(stats_, 0);
        segment_.begin("barrier", deadline_seconds_);
        segment_.barrier();
    }
    void broadcast(void* data, size_t bytes, int root) override {
        const StatsScope scope(stats_, bytes);
        segment_.begin("broadcast", deadline_seconds_);
        segment_.broadcast(data, bytes, root);
    }
    void all_reduce_sum(float* data, size_t count) override {
        const StatsScope scope(stats_, count * sizeof(float));
        segment_.begin("all_reduce_sum", deadline_seconds_);
        segment_.all_reduce(Reduction::kSum, data, count);
    }
    void all_reduce_max(float* data, size_t count) override {
        const StatsScope scope(stats_, count * sizeof(float));
        segment_.begin("all_reduce_max", deadline_seconds_);
        segment_.all_reduce(Reduction::kMax, data, count);
    }
    void all_gather(const void* send, void* recv, std::span<const size_t> bytes) override {
        const StatsScope scope(stats_, std::accumulate(bytes.begin(), bytes.end(), size_t{0}));
        CONCLAVE_CHECK(bytes.size() == static_cast<size_t>(size()));
        segment_.begin("all_gather", deadline_seconds_);
        segment_.all_gather(send, static_cast<std::byte*>(recv), bytes);
    }
    std::unique_ptr<Communicator> split(int color, int key) override {
        const SplitGroup group = split_group(*this, color, key);
        const int ranks = static_cast<int>(group.members.size());
        auto child = std::make_unique<LocalCommunicator>(
            world_->child(splits_++, group.index, ranks), group.position, ranks, backend_);
        child->deadline_seconds_ = deadline_seconds_;
        return child;
    }

    void poison(const Error& error) noexcept override {
        segment_.poison(pack_error(error, rank()));
    }
    void set_deadline(double seconds) override { deadline_seconds_ = seconds; }
    void set_phase(const char* phase) noexcept override { segment_.set_phase(phase); }
    CommStats stats() const override { return stats_; }

  private:
    static std::vector<int> numbers(int ranks) {
        std::vector<int> all(static_cast<size_t>(ranks));
        std::iota(all.begin(), all.end(), 0);
        return all;
    }

    std::shared_ptr<LocalWorld> world_;
    const char* backend_;
    std::string host_;
    SharedSegment segment_;
    double deadline_seconds_ = 300;
    uint64_t splits_ = 0;
    CommStats stats_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_local(int ranks, const LocalOptions& options) {
    if (ranks < 1)
        throw Error(ErrorCode::kUsage, "a communicator needs at least one rank")
            .found(std::to_string(ranks));
    const auto world = std::make_shared<LocalWorld>(
        ranks, options.slot_bytes, options.ranks_per_host > 0 ? options.ranks_per_host : ranks);
    std::vector<std::unique_ptr<Communicator>> all;
    for (int r = 0; r < ranks; ++r)
        all.push_back(std::make_unique<LocalCommunicator>(world, r, ranks, "local"));
    return all;
}

std::unique_ptr<Communicator> make_self() {
    // Its slots are never touched: the smallest will do.
    return std::make_unique<LocalCommunicator>(std::make_shared<LocalWorld>(1, 64, 1), 0, 1,
                                               "self");
}

}  // namespace conclave::comm
