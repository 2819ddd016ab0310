#include "runtime/comm/callback_communicator.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/comm/error_text.h"
#include "runtime/comm/host_map.h"
#include "runtime/comm/reduction.h"
#include "runtime/comm/split_group.h"
#include "runtime/comm/stats_scope.h"

namespace conclave::comm {
namespace {

constexpr size_t kHostNameBytes = 64;

void validate(const Transport& t) {
    if (t.size < 1 || t.rank < 0 || t.rank >= t.size)
        throw Error(ErrorCode::kUsage, "a transport's rank is not one of its ranks")
            .found("rank " + std::to_string(t.rank) + " of " + std::to_string(t.size));
    const auto need = [](bool there, const char* name) {
        if (!there)
            throw Error(ErrorCode::kUsage, std::string("a transport has no function ") + name);
    };
    need(static_cast<bool>(t.all_reduce), "all_reduce");
    need(static_cast<bool>(t.all_gather), "all_gather");
    need(static_cast<bool>(t.broadcast), "broadcast");
    need(static_cast<bool>(t.barrier), "barrier");
    need(static_cast<bool>(t.abort), "abort");
}

/// Which collective a rank is in, and what it gives to it.
struct Announcement {
    uint64_t part = 0;  ///< 0: all ranks
    uint64_t bytes = 0;
    uint64_t members = 0;
};

/// The host's functions, as one rank and all its parts share them.
class Host {
  public:
    explicit Host(Transport transport) : transport_(std::move(transport)) {}

    int rank() const { return transport_.rank; }
    size_t size() const { return static_cast<size_t>(transport_.size); }
    const Transport& functions() const { return transport_; }

    /// Runs `body`, which calls functions of the host. Whatever it throws is a poison.
    template <class Body>
    void guarded(const char* operation, Body&& body) {
        check_poison();
        try {
            body();
        } catch (const Error& e) {
            poison(e);
        } catch (const std::bad_alloc&) {
            poison(Error(ErrorCode::kResource, std::string("out of memory in ") + operation));
        } catch (const std::exception& e) {
            poison(Error(ErrorCode::kHost,
                         std::string("the host's ") + operation + " threw: " + e.what()));
        } catch (...) {
            poison(Error(ErrorCode::kHost, std::string("the host's ") + operation + " threw"));
        }
        check_poison();
    }

    void poison(const Error& error) noexcept {
        if (poisoned_) return;
        poisoned_ = true;
        try {
            poison_ = unpack_error(pack_error(error, rank()));
        } catch (const std::exception&) {
            poison_.emplace(error);
        }
        try {
            transport_.abort(*poison_);
        } catch (...) {  // it promised not to; this rank has failed all the same
        }
    }

    /// A number that this rank gives to no other part.
    uint64_t next_part() { return (static_cast<uint64_t>(rank()) << 32) + ++parts_; }
    /// From now on ranks may be in different collectives. On all ranks at the same point.
    void expect_parts() { has_parts_ = true; }
    /// Before a collective of all ranks: lets those of parts take place first.
    void meet() {
        if (has_parts_) gather({0, 0, size()}, nullptr);
    }

    struct Gathered {
        const std::byte* data;
        std::vector<size_t> bytes;  ///< of every rank, in rank order, back to back
    };
    /// Takes part in rounds until the collective that is announced has taken place. What it returns
    /// is good until the next one.
    Gathered gather(const Announcement& mine, const void* send) {
        for (;;) {
            const std::vector<Announcement> all = exchange(mine);
            std::vector<size_t> bytes(size());
            size_t total = 0;
            bool any = false;
            for (size_t r = 0; r < size(); ++r) {
                const bool ready = takes_place(all, all[r].part);
                any = any || ready;
                bytes[r] = ready ? static_cast<size_t>(all[r].bytes) : 0;
                total += bytes[r];
            }
            if (!any) throw Error(ErrorCode::kInternal, "ranks are in collectives that never meet");
            if (total > 0) {
                if (gathered_.size() < total) gathered_.resize(total);
                transport_.all_gather(send, gathered_.data(), bytes);
            }
            if (takes_place(all, mine.part)) return {gathered_.data(), std::move(bytes)};
        }
    }

  private:
    void check_poison() const {
        if (poison_) throw Error(*poison_);
    }

    std::vector<Announcement> exchange(const Announcement& mine) const {
        std::vector<Announcement> all(size());
        const std::vector<size_t> bytes(size(), sizeof mine);
        transport_.all_gather(&mine, all.data(), bytes);
        return all;
    }

    static bool takes_place(const std::vector<Announcement>& all, uint64_t part) {
        uint64_t there = 0, members = 0;
        for (const Announcement& a : all)
            if (a.part == part) {
                ++there;
                members = a.members;
            }
        return there == members;
    }

    Transport transport_;
    uint64_t parts_ = 0;
    bool has_parts_ = false;
    bool poisoned_ = false;
    std::optional<Error> poison_;
    std::vector<std::byte> gathered_;
};

HostMap map_of(int rank, std::vector<std::string> names) {
    std::vector<int> leaders;
    for (const std::string& name : names)
        leaders.push_back(
            static_cast<int>(std::find(names.begin(), names.end(), name) - names.begin()));
    return HostMap(rank, leaders, std::move(names));
}

class CallbackCommunicator final : public Communicator {
  public:
    /// `members`: the host's ranks that belong to it. `part`: 0 if those are all, in order; else a
    /// number that no other part of them has.
    CallbackCommunicator(std::shared_ptr<Host> host, std::vector<int> members, uint64_t part,
                         HostMap map)
        : host_(std::move(host)), members_(std::move(members)), part_(part), map_(std::move(map)) {}

    int rank() const override { return map_.rank; }
    int size() const override { return static_cast<int>(members_.size()); }
    const char* backend() const override { return "transport"; }
    std::string host() const override { return map_.names[static_cast<size_t>(rank())]; }
    int local_rank() const override { return map_.local_rank; }
    int local_size() const override { return static_cast<int>(map_.own().size()); }
    int hosts() const override { return map_.hosts(); }

    void barrier() override {
        collective("barrier", 0, [&] {
            if (whole())
                functions().barrier();
            else
                gather(nullptr, 0);
        });
    }

    void broadcast(void* data, size_t bytes, int root) override {
        collective("broadcast", bytes, [&] {
            if (whole()) return functions().broadcast(data, bytes, root);
            const auto pieces = gather(data, rank() == root ? bytes : 0);
            if (rank() != root) copy(data, pieces[static_cast<size_t>(root)], bytes);
        });
    }

    void all_reduce_sum(float* data, size_t count) override {
        all_reduce("all_reduce", Reduction::kSum, data, count);
    }
    void all_reduce_max(float* data, size_t count) override {
        all_reduce("all_reduce", Reduction::kMax, data, count);
    }

    void all_gather(const void* send, void* recv, std::span<const size_t> bytes) override {
        CONCLAVE_CHECK(bytes.size() == members_.size());
        const size_t total = std::accumulate(bytes.begin(), bytes.end(), size_t{0});
        collective("all_gather", total, [&] {
            if (whole()) return functions().all_gather(send, recv, bytes);
            const auto pieces = gather(send, bytes[static_cast<size_t>(rank())]);
            auto* out = static_cast<std::byte*>(recv);
            for (size_t r = 0; r < pieces.size(); out += bytes[r++]) copy(out, pieces[r], bytes[r]);
        });
    }

    std::unique_ptr<Communicator> split(int color, int key) override {
        const SplitGroup group = split_group(*this, color, key);
        std::vector<int> members;
        std::vector<std::string> hosts;
        for (const int r : group.members) {
            members.push_back(members_[static_cast<size_t>(r)]);
            hosts.push_back(map_.names[static_cast<size_t>(r)]);
        }
        struct Made {
            uint64_t name, talks;
        };
        const bool everybody = whole() && members == members_;
        const Made mine{host_->next_part(), !everybody && members.size() > 1};
        std::vector<Made> made(members_.size());
        all_gather(&mine, made.data(), std::vector<size_t>(made.size(), sizeof mine));
        if (std::any_of(made.begin(), made.end(), [](const Made& m) { return m.talks != 0; }))
            host_->expect_parts();
        const auto first = static_cast<size_t>(group.members.front());
        return std::make_unique<CallbackCommunicator>(host_, std::move(members),
                                                      everybody ? 0 : made[first].name,
                                                      map_of(group.position, std::move(hosts)));
    }

    void poison(const Error& error) noexcept override { host_->poison(error); }
    void set_deadline(double) override {}
    void set_phase(const char*) noexcept override {}
    CommStats stats() const override { return stats_; }

  private:
    struct Piece {
        const std::byte* data;
        size_t bytes;
    };

    const Transport& functions() const { return host_->functions(); }
    bool whole() const { return part_ == 0; }

    static void copy(void* to, const Piece& piece, size_t bytes) {
        CONCLAVE_CHECK(piece.bytes == bytes);
        if (bytes > 0) std::memmove(to, piece.data, bytes);
    }

    template <class Body>
    void collective(const char* operation, size_t bytes, Body&& body) {
        const StatsScope scope(stats_, bytes);
        host_->guarded(operation, [&] {
            poll_abort();
            if (whole()) host_->meet();
            body();
        });
    }

    /// What each member of this part gives. Good until the next collective of the host.
    std::vector<Piece> gather(const void* send, size_t bytes) {
        if (size() == 1) return {{static_cast<const std::byte*>(send), bytes}};
        const Host::Gathered all = host_->gather({part_, bytes, members_.size()}, send);
        std::vector<const std::byte*> begins;
        const std::byte* at = all.data;
        for (const size_t n : all.bytes) {
            begins.push_back(at);
            at += n;
        }
        std::vector<Piece> pieces;
        for (const int member : members_) {
            const auto r = static_cast<size_t>(member);
            pieces.push_back({begins[r], all.bytes[r]});
        }
        return pieces;
    }

    void all_reduce(const char* operation, Reduction op, float* data, size_t count) {
        const size_t bytes = count * sizeof(float);
        collective(operation, bytes, [&] {
            if (whole()) return functions().all_reduce(data, count, op == Reduction::kMax);
            const auto pieces = gather(data, bytes);
            // Pieces of other parts may have put these anywhere: floats need their alignment.
            std::vector<float> terms(pieces.size() * count);
            std::vector<const float*> inputs;
            for (size_t r = 0; r < pieces.size(); ++r) {
                copy(terms.data() + r * count, pieces[r], bytes);
                inputs.push_back(terms.data() + r * count);
            }
            reduce_in_order(op, inputs, data, count);
        });
    }

    std::shared_ptr<Host> host_;
    std::vector<int> members_;
    uint64_t part_;
    HostMap map_;
    CommStats stats_;
};

}  // namespace

std::shared_ptr<Communicator> make_callback(Transport transport) {
    validate(transport);
    auto host = std::make_shared<Host>(std::move(transport));
    const size_t ranks = host->size();
    std::vector<char> all(ranks * kHostNameBytes);
    char name[kHostNameBytes] = {};
    gethostname(name, sizeof name - 1);
    host->guarded("all_gather", [&] {
        host->functions().all_gather(name, all.data(), std::vector<size_t>(ranks, sizeof name));
    });
    std::vector<std::string> names;
    for (size_t r = 0; r < ranks; ++r) {
        const char* at = all.data() + r * kHostNameBytes;
        names.emplace_back(at, strnlen(at, kHostNameBytes - 1));
    }
    std::vector<int> members(ranks);
    std::iota(members.begin(), members.end(), 0);
    HostMap map = map_of(host->rank(), std::move(names));
    return std::make_shared<CallbackCommunicator>(std::move(host), std::move(members), 0,
                                                  std::move(map));
}

}  // namespace conclave::comm
