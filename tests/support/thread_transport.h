// A host with collectives of its own, whose ranks are threads of this process: what a Transport or
// a conclave_transport is made of in tests. Its waits know no deadline; abort() ends them.
#pragma once
#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "runtime/comm/transport.h"

namespace conclave::test {

class ThreadHost {
  public:
    explicit ThreadHost(int ranks)
        : given_(static_cast<size_t>(ranks)), aborts_(given_.size()), calls_(given_.size()) {}

    /// Called on each rank before its `call`-th function (from 0), by name; may throw. Set before
    /// the ranks start.
    std::function<void(int rank, const std::string& function, int call)> before;

    int ranks() const { return static_cast<int>(given_.size()); }
    /// Once the rank's thread has ended, or on it.
    int aborts_of(int rank) const { return aborts_[static_cast<size_t>(rank)]; }
    int calls_of(int rank) const { return calls_[static_cast<size_t>(rank)]; }

    Transport transport(int rank) {
        Transport t;
        t.rank = rank;
        t.size = ranks();
        t.all_reduce = [this, rank](float* data, size_t count, bool maximum) {
            all_reduce(rank, data, count, maximum);
        };
        t.all_gather = [this, rank](const void* send, void* recv, std::span<const size_t> bytes) {
            all_gather(rank, send, recv, bytes);
        };
        t.broadcast = [this, rank](void* data, size_t bytes, int root) {
            broadcast(rank, data, bytes, root);
        };
        t.barrier = [this, rank] { barrier(rank); };
        t.abort = [this, rank](const Error& error) { abort(rank, error); };
        return t;
    }

    void all_reduce(int rank, float* data, size_t count, bool maximum) {
        begin(rank, "all_reduce");
        give(rank, data, count * sizeof(float));
        for (size_t i = 0; i < count; ++i) {
            float all = value(0, i);
            for (int r = 1; r < ranks(); ++r) {
                const float v = value(r, i);
                if (maximum)
                    all = all > v || all != all ? all : v;
                else
                    all += v;
            }
            data[i] = all;
        }
        meet();
    }
    void all_gather(int rank, const void* send, void* recv, std::span<const size_t> bytes) {
        begin(rank, "all_gather");
        give(rank, send, bytes[static_cast<size_t>(rank)]);
        auto* to = static_cast<std::byte*>(recv);
        for (size_t r = 0; r < given_.size(); to += bytes[r++]) {
            if (given_[r].size() != bytes[r])
                throw Error(ErrorCode::kHost, "ranks do not agree on the sizes of an all_gather");
            std::copy(given_[r].begin(), given_[r].end(), to);
        }
        meet();
    }
    void broadcast(int rank, void* data, size_t bytes, int root) {
        begin(rank, "broadcast");
        give(rank, data, rank == root ? bytes : 0);
        const std::vector<std::byte>& from = given_[static_cast<size_t>(root)];
        if (from.size() != bytes)
            throw Error(ErrorCode::kHost, "ranks do not agree on the size of a broadcast");
        std::copy(from.begin(), from.end(), static_cast<std::byte*>(data));
        meet();
    }
    void barrier(int rank) {
        begin(rank, "barrier");
        meet();
    }

    void abort(int rank, const Error& error) {
        ++aborts_[static_cast<size_t>(rank)];
        const std::lock_guard lock(mutex_);
        if (!aborted_) error_ = error;
        aborted_ = true;
        arrival_.notify_all();
    }

  private:
    void begin(int rank, const char* function) {
        const int call = calls_[static_cast<size_t>(rank)]++;
        if (before) before(rank, function, call);
        const std::lock_guard lock(mutex_);
        if (aborted_) throw error_;
    }
    /// Copies what a rank gives, so that nobody reads memory of one that has failed.
    void give(int rank, const void* data, size_t bytes) {
        const auto* from = static_cast<const std::byte*>(data);
        given_[static_cast<size_t>(rank)].assign(from, from + bytes);
        meet();
    }
    float value(int rank, size_t i) const {
        float v;
        std::memcpy(&v, given_[static_cast<size_t>(rank)].data() + i * sizeof v, sizeof v);
        return v;
    }
    void meet() {
        std::unique_lock lock(mutex_);
        if (aborted_) throw error_;
        const uint64_t meeting = meeting_;
        if (++arrived_ == ranks()) {
            arrived_ = 0;
            ++meeting_;
            arrival_.notify_all();
            return;
        }
        arrival_.wait(lock, [&] { return meeting_ != meeting || aborted_; });
        if (meeting_ == meeting) throw error_;
    }

    std::vector<std::vector<std::byte>> given_;
    std::vector<int> aborts_, calls_;
    std::mutex mutex_;
    std::condition_variable arrival_;
    uint64_t meeting_ = 0;
    int arrived_ = 0;
    bool aborted_ = false;
    Error error_{ErrorCode::kInternal, "not aborted"};
};

}  // namespace conclave::test
