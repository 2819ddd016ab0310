#include "runtime/comm/modelled_communicator.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <numeric>
#include <string_view>
#include <utility>

#include "runtime/comm/stats_scope.h"

namespace conclave::comm {
namespace {

class ModelledCommunicator final : public Communicator {
  public:
    ModelledCommunicator(ModelledWorld world, std::shared_ptr<Communicator> here, StepTrace* trace)
        : world_(std::move(world)), here_(std::move(here)), trace_(trace) {
        const std::vector<int>& hosts = world_.host_of;
        CONCLAVE_CHECK(here_->size() <= static_cast<int>(hosts.size()));
        const auto self = hosts.begin() + rank();
        local_rank_ = static_cast<int>(std::count(hosts.begin(), self, *self));
        for (const int h : hosts) ++members_[h];
    }

    int rank() const override { return here_->rank(); }
    int size() const override { return static_cast<int>(world_.host_of.size()); }
    const char* backend() const override { return "modelled"; }
    std::string host() const override { return here_->host(); }
    int local_rank() const override { return local_rank_; }
    int local_size() const override {
        return members_.at(world_.host_of[static_cast<size_t>(rank())]);
    }
    int hosts() const override { return static_cast<int>(members_.size()); }

    void barrier() override {
        const StatsScope scope(stats_, 0);
        here_->barrier();
        note({Collective::Kind::kBarrier, hosts(), 0, 0, 0});
    }
    void broadcast(void* data, size_t bytes, int root) override {
        const StatsScope scope(stats_, bytes);
        if (root < here_->size()) here_->broadcast(data, bytes, root);
        note({Collective::Kind::kBroadcast, hosts(), bytes, 0, 0});
    }
    void all_reduce_sum(float* data, size_t count) override {
        const StatsScope scope(stats_, count * sizeof(float));
        here_->all_reduce_sum(data, count);
        note({Collective::Kind::kAllReduce, hosts(), count * sizeof(float), 0, 0});
    }
    void all_reduce_max(float* data, size_t count) override {
        const StatsScope scope(stats_, count * sizeof(float));
        here_->all_reduce_max(data, count);
        note({Collective::Kind::kAllReduce, hosts(), count * sizeof(float), 0, 0});
    }
    void all_gather(const void* send, void* recv, std::span<const size_t> bytes) override {
        CONCLAVE_CHECK(bytes.size() == world_.host_of.size());
        const size_t total = std::accumulate(bytes.begin(), bytes.end(), size_t{0});
        const StatsScope scope(stats_, total);
        const auto here = static_cast<size_t>(here_->size()), self = static_cast<size_t>(rank());
        here_->all_gather(send, recv, bytes.first(here));
        auto* at = static_cast<std::byte*>(recv);
        const std::byte* own =
            at + std::accumulate(bytes.begin(), bytes.begin() + rank(), size_t{0});
        for (size_t r = 0; r < bytes.size(); at += bytes[r++]) {
            if (r < here || bytes[r] == 0) continue;
            const size_t known = std::min(bytes[self], bytes[r]);
            if (known > 0) std::memcpy(at, own, known);
            std::memset(at + known, 0, bytes[r] - known);
        }
        note_gather(bytes, total);
    }
    std::unique_ptr<Communicator> split(int color, int key) override {
        const std::vector<int>& colors = world_.color_of;
        CONCLAVE_CHECK(colors.size() == world_.host_of.size() &&
                       colors[static_cast<size_t>(rank())] == color && key == rank());
        ModelledWorld part;
        for (size_t r = 0; r < colors.size(); ++r)
            if (colors[r] == color) part.host_of.push_back(world_.host_of[r]);
        return std::make_unique<ModelledCommunicator>(std::move(part), here_->split(color, key),
                                                      trace_);
    }

    void poison(const Error& error) noexcept override { here_->poison(error); }
    void set_deadline(double seconds) override { here_->set_deadline(seconds); }
    void set_phase(const char* phase) noexcept override {
        if (trace_) trace_->phase(phase);
        here_->set_phase(phase);
    }
    CommStats stats() const override { return stats_; }

  private:
    void note(const Collective& collective) {
        if (trace_) trace_->add(collective);
    }
    void note_gather(std::span<const size_t> bytes, size_t total) {
        if (!trace_) return;
        std::map<int, size_t> of_host;
        for (size_t r = 0; r < bytes.size(); ++r) of_host[world_.host_of[r]] += bytes[r];
        Collective c{Collective::Kind::kAllGather, hosts(), total, 0, total};
        for (const auto& [host, sum] : of_host) {
            c.largest_host = std::max(c.largest_host, sum);
            c.smallest_host = std::min(c.smallest_host, sum);
        }
        trace_->add(c);
    }

    ModelledWorld world_;
    std::shared_ptr<Communicator> here_;
    StepTrace* trace_;
    std::map<int, int> members_;  ///< ranks of each host
    int local_rank_ = 0;
    CommStats stats_;
};

/// "layer 12 mlp" -> 12; else -1.
int layer_of(std::string_view phase) {
    constexpr std::string_view kLayer = "layer ";
    if (phase.substr(0, kLayer.size()) != kLayer) return -1;
    int layer = -1;
    std::from_chars(phase.data() + kLayer.size(), phase.data() + phase.size(), layer);
    return layer;
}

}  // namespace

void StepTrace::begin() {
    for (Part& p : layers) p = {};
    rest = {};
    layer_ = -1;
    running_ = true;
    since_ = std::chrono::steady_clock::now();
}

void StepTrace::charge() noexcept {
    const auto now = std::chrono::steady_clock::now();
    part().seconds += std::chrono::duration<double>(now - since_).count();
    since_ = now;
}

void StepTrace::phase(const char* phase) noexcept {
    if (!running_) return;
    const int layer = layer_of(phase);
    if (layer == layer_ || layer >= static_cast<int>(layers.size())) return;
    charge();
    layer_ = layer;
}

void StepTrace::end() {
    charge();
    running_ = false;
}

std::unique_ptr<Communicator> make_modelled(ModelledWorld world, std::shared_ptr<Communicator> here,
                                            StepTrace* trace) {
    return std::make_unique<ModelledCommunicator>(std::move(world), std::move(here), trace);
}

}  // namespace conclave::comm
