#include "runtime/comm/mpi_communicator.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "runtime/comm/host_map.h"
#include "runtime/comm/leader_link.h"
#include "runtime/comm/mpi_call.h"
#include "runtime/comm/shared_memory.h"
#include "runtime/comm/shared_segment.h"
#include "runtime/comm/split_group.h"
#include "runtime/comm/stats_scope.h"

namespace conclave::comm {
namespace {

constexpr size_t kHostNameBytes = 64;

/// agree() for the time before there is a communicator: plain MPI, so it waits without a deadline.
void agree_over(MPI_Comm comm, const Error* error) {
    int rank = 0;
    CONCLAVE_MPI(MPI_Comm_rank(comm, &rank));
    const int mine = error != nullptr ? rank : std::numeric_limits<int>::max();
    int first = 0;
    CONCLAVE_MPI(MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, comm));
    if (first == std::numeric_limits<int>::max()) return;
    ErrorText text;
    if (first == rank) text = pack_error(*error, rank);
    CONCLAVE_MPI(MPI_Bcast(&text, sizeof text, MPI_BYTE, first, comm));
    throw unpack_error(text);
}

template <class Body>
void together_over(MPI_Comm comm, Body&& body) {
    std::unique_ptr<Error> failure;
    try {
        body();
    } catch (const Error& e) {
        failure = std::make_unique<Error>(e);
    }
    agree_over(comm, failure.get());
}

/// What CONCLAVE_MPI_NAME of conclave_mpi.h says in a program that was built with this MPI.
#if defined(OMPI_MAJOR_VERSION)
constexpr const char kMpiName[] = "Open MPI";
#elif defined(MPICH_VERSION)
constexpr const char kMpiName[] = "MPICH";
#else
constexpr const char kMpiName[] = "another MPI";
#endif

/// "Open MPI 4.1.4": MPI's own text is "Open MPI v4.1.4, package: ...", or has lines like
/// "MPICH Version: 4.0.2".
std::string library_name() {
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
    int length = 0;
    if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) return kMpiName;
    std::string name(text, std::strcspn(text, ",\n"));
    std::replace(name.begin(), name.end(), '\t', ' ');
    for (const char* noise : {"Version:", "Library ", " v"})
        if (const size_t at = name.find(noise); at != std::string::npos)
            name.replace(at, std::strlen(noise), " ");
    const auto double_space = [](char a, char b) { return a == ' ' && b == ' '; };
    name.erase(std::unique(name.begin(), name.end(), double_space), name.end());
    while (!name.empty() && name.back() == ' ') name.pop_back();
    return name;
}

const char* level_name(int level) {
    if (level == MPI_THREAD_MULTIPLE) return "MPI_THREAD_MULTIPLE";
    if (level == MPI_THREAD_SERIALIZED) return "MPI_THREAD_SERIALIZED";
    return level == MPI_THREAD_FUNNELED ? "MPI_THREAD_FUNNELED" : "MPI_THREAD_SINGLE";
}

/// Why the calling thread may not call an MPI of this thread level; null: it may.
const char* thread_problem(int level) {
    int finalized = 0, is_main = 1;
    MPI_Finalized(&finalized);
    if (finalized != 0) return "MPI has been finalised";
    if (level != MPI_THREAD_SERIALIZED && level != MPI_THREAD_MULTIPLE)
        MPI_Is_thread_main(&is_main);
    if (is_main != 0) return nullptr;
    return level == MPI_THREAD_FUNNELED
               ? "not MPI's main thread, which alone may call it: MPI_THREAD_FUNNELED"
               : "not MPI's main thread, which alone may call it: MPI_THREAD_SINGLE";
}

int pretended_hosts(const MpiOptions& options) {
    if (options.pretend_hosts > 0) return options.pretend_hosts;
    const char* text = std::getenv("CONCLAVE_PRETEND_HOSTS");
    return text == nullptr ? 0 : std::atoi(text);
}

/// The ranks that share this rank's memory, in the order of `comm`.
OwnedComm split_by_host(MPI_Comm comm, int rank, int pretend) {
    MPI_Comm node = MPI_COMM_NULL;
    if (pretend > 1)
        CONCLAVE_MPI(MPI_Comm_split(comm, rank % pretend, rank, &node));
    else
        CONCLAVE_MPI(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node));
    return OwnedComm(node);
}

HostMap map_hosts(MPI_Comm comm, MPI_Comm node, int pretend) {
    int rank = 0, size = 0;
    CONCLAVE_MPI(MPI_Comm_rank(comm, &rank));
    CONCLAVE_MPI(MPI_Comm_size(comm, &size));
    int leader = rank;
    CONCLAVE_MPI(MPI_Bcast(&leader, 1, MPI_INT, 0, node));
    std::vector<int> leaders(static_cast<size_t>(size));
    CONCLAVE_MPI(MPI_Allgather(&leader, 1, MPI_INT, leaders.data(), 1, MPI_INT, comm));

    char name[kHostNameBytes] = {};
    gethostname(name, sizeof name - 1);
    if (pretend > 1) {
        const std::string suffix = "#" + std::to_string(rank % pretend);
        std::strncat(name, suffix.c_str(), sizeof name - 1 - std::strlen(name));
    }
    std::vector<char> all(leaders.size() * kHostNameBytes);
    CONCLAVE_MPI(
        MPI_Allgather(name, kHostNameBytes, MPI_CHAR, all.data(), kHostNameBytes, MPI_CHAR, comm));
    std::vector<std::string> names;
    for (size_t r = 0; r < leaders.size(); ++r) {
        const char* at = all.data() + r * kHostNameBytes;
        names.emplace_back(at, strnlen(at, kHostNameBytes - 1));
    }
    return HostMap(rank, leaders, std::move(names));
}

/// Collective over `comm`; the ranks of `node` then share memory. Throws on all ranks or on none.
void share_memory(MPI_Comm comm, MPI_Comm node, const HostMap& map, size_t bytes,
                  SharedMemory& memory) {
    char name[kHostNameBytes] = {};
    together_over(comm, [&] {
        if (!map.leads()) return;
        memory.create(bytes);
        memory.name().copy(name, sizeof name - 1);
    });
    CONCLAVE_MPI(MPI_Bcast(name, sizeof name, MPI_CHAR, 0, node));
    together_over(comm, [&] {
        if (!map.leads()) memory.open(name, bytes);
    });
    if (map.leads()) memory.remove_name();
}

class MpiCommunicator final : public Communicator {
  public:
    /// Collective over `comm`.
    MpiCommunicator(OwnedComm comm, const MpiOptions& options)
        : MpiCommunicator(std::move(comm), options, pretended_hosts(options), 0) {}

    ~MpiCommunicator() override {
        segment_->leave();
        // After MPI_Finalize, or on a thread that may not call MPI, all of it is left to MPI.
        const bool may_call = thread_problem(level_) == nullptr;
        if (may_call) link_->relay();
        // Where messages may be under way, another communicator must not get this one's number.
        if (!may_call || !link_->close()) comm_.release();
    }

    int rank() const override { return map_->rank; }
    int size() const override { return static_cast<int>(map_->host_of.size()); }
    const char* backend() const override { return "mpi"; }
    std::string library() const override { return library_name() + ", " + level_name(level_); }
    std::string advice() const override {
        if (level_ != MPI_THREAD_SINGLE) return {};
        return "MPI was initialised for one thread only (MPI_Init, or MPI_Init_thread that gave "
               "MPI_THREAD_SINGLE), but the engine computes with several: ask for "
               "MPI_THREAD_FUNNELED, which is all it needs";
    }
    void check_thread() const override {
        if (const char* problem = thread_problem(level_)) throw Error(ErrorCode::kUsage, problem);
    }
    std::string host() const override { return map_->names[static_cast<size_t>(rank())]; }
    int local_rank() const override { return map_->local_rank; }
    int local_size() const override { return static_cast<int>(map_->own().size()); }
    int hosts() const override { return map_->hosts(); }

    void barrier() override {
        collective("barrier", 0, [&] {
            segment_->barrier();
            if (hosts() == 1) return;
            across([&] { link_->barrier(); });
            segment_->barrier();
        });
    }

    void broadcast(void* data, size_t bytes, int root) override {
        collective("broadcast", bytes, [&] {
            const int root_host = map_->host_of[static_cast<size_t>(root)];
            const int local_root = map_->local_rank_of[static_cast<size_t>(root)];
            if (map_->host == root_host) segment_->broadcast(data, bytes, local_root);
            across([&] { link_->broadcast(static_cast<std::byte*>(data), bytes, root_host); });
            if (map_->host != root_host) segment_->broadcast(data, bytes, 0);
        });
    }

    void all_reduce_sum(float* data, size_t count) override {
        collective("all_reduce_sum", count * sizeof(float),
                   [&] { all_reduce(Reduction::kSum, data, count); });
    }
    void all_reduce_max(float* data, size_t count) override {
        collective("all_reduce_max", count * sizeof(float),
                   [&] { all_reduce(Reduction::kMax, data, count); });
    }

    void all_gather(const void* send, void* recv, std::span<const size_t> bytes) override {
        CONCLAVE_CHECK(bytes.size() == map_->host_of.size());
        const size_t total = std::accumulate(bytes.begin(), bytes.end(), size_t{0});
        collective("all_gather", total, [&] {
            auto* out = static_cast<std::byte*>(recv);
            if (hosts() == 1)
                segment_->all_gather(send, out, bytes);
            else
                gather_over_hosts(send, out, bytes, total);
        });
    }

    std::unique_ptr<Communicator> split(int color, int key) override {
        const SplitGroup group = split_group(*this, color, key);
        MPI_Comm part = MPI_COMM_NULL;
        // All ranks have just met in split_group, so MPI's own blocking calls come together.
        CONCLAVE_MPI(MPI_Comm_split(comm_.get(), group.index, group.position, &part));
        // A private constructor, so no make_unique.
        std::unique_ptr<MpiCommunicator> child(
            new MpiCommunicator(OwnedComm(part), options_, pretended_hosts(options_), sharing_));
        child->deadline_seconds_ = deadline_seconds_;
        return child;
    }

    void poison(const Error& error) noexcept override {
        segment_->poison(pack_error(error, rank()));
        if (thread_problem(level_) == nullptr) link_->relay();
    }
    void set_deadline(double seconds) override { deadline_seconds_ = seconds; }
    void set_phase(const char* phase) noexcept override { segment_->set_phase(phase); }
    CommStats stats() const override { return stats_; }

  private:
    /// `sharing`: ranks on this host, of the communicators that this one is split from.
    MpiCommunicator(OwnedComm comm, const MpiOptions& options, int pretend, int sharing)
        : options_(options), comm_(std::move(comm)) {
        int rank = 0;
        CONCLAVE_MPI(MPI_Query_thread(&level_));
        CONCLAVE_MPI(MPI_Comm_rank(comm_.get(), &rank));
        const OwnedComm node = split_by_host(comm_.get(), rank, pretend);
        map_ = std::make_unique<HostMap>(map_hosts(comm_.get(), node.get(), pretend));
        sharing_ = std::max(sharing, local_size());
        const size_t slots = options.slot_bytes;
        share_memory(comm_.get(), node.get(), *map_,
                     SharedSegment::region_bytes(local_size(), slots), memory_);
        segment_ = std::make_unique<SharedSegment>(
            memory_.data(),
            SharedSegment::Config{map_->local_rank, map_->own(), host(), slots, sharing_});
        link_ = std::make_unique<LeaderLink>(
            comm_.get(), *map_, *segment_,
            std::clamp<size_t>(options.max_message_bytes, 1, std::numeric_limits<int>::max()));
        segment_->set_poll([this] {
            if (map_->leads()) link_->receive_poison();
            poll_abort();
        });
        link_->connect();
    }

    /// Runs `body` as one collective; whatever ends it early ends it on all ranks.
    template <class Body>
    void collective(const char* operation, size_t bytes, Body&& body) {
        const StatsScope scope(stats_, bytes);
        try {
            segment_->begin(operation, deadline_seconds_);
            if (map_->leads()) link_->receive_poison();
            body();
        } catch (const std::exception& e) {
            const auto* own = dynamic_cast<const Error*>(&e);
            if (!segment_->poisoned())
                poison(own != nullptr ? *own : Error(ErrorCode::kResource, e.what()));
            link_->relay();
            segment_->check_poison();
            throw;
        }
    }

    /// Runs `body`, which talks to the other hosts, on the leader. A missing rank is best named by
    /// its own host, which knows its phase: the leaders elsewhere wait a little longer than its
    /// neighbours, and the followers of a leader longer still.
    template <class Body>
    void across(Body&& body) {
        const double patience = std::clamp(deadline_seconds_ / 4, 0.0, 1.0);
        segment_->extend_deadline(patience);
        if (map_->leads()) body();
        segment_->extend_deadline(2 * patience);
    }

    void all_reduce(Reduction op, float* data, size_t count) {
        segment_->all_reduce(op, data, count);
        if (hosts() == 1) return;
        across([&] { link_->all_reduce(op, data, count); });
        segment_->broadcast(data, count * sizeof(float), 0);
    }

    /// The pieces of a host lie together in `packed`, hosts in order; that is rank order if the
    /// ranks of each host are contiguous, else they are put in rank order at the end.
    void gather_over_hosts(const void* send, std::byte* recv, std::span<const size_t> bytes,
                           size_t total) {
        if (!map_->contiguous && gathered_.size() < total) gathered_.resize(total);
        std::byte* packed = map_->contiguous ? recv : gathered_.data();
        std::vector<size_t> host_bytes, own_bytes;
        size_t own_at = 0, at = 0;
        for (int h = 0; h < hosts(); ++h) {
            if (h == map_->host) own_at = at;
            size_t sum = 0;
            for (const int r : map_->members[static_cast<size_t>(h)])
                sum += bytes[static_cast<size_t>(r)];
            host_bytes.push_back(sum);
            at += sum;
        }
        for (const int r : map_->own()) own_bytes.push_back(bytes[static_cast<size_t>(r)]);

        segment_->all_gather(send, packed + own_at, own_bytes);
        across([&] { link_->all_gather(packed, host_bytes); });
        const size_t after = own_at + host_bytes[static_cast<size_t>(map_->host)];
        segment_->broadcast(packed, own_at, 0);
        segment_->broadcast(packed + after, total - after, 0);
        if (!map_->contiguous) unpack(packed, recv, bytes);
    }

    void unpack(const std::byte* packed, std::byte* recv, std::span<const size_t> bytes) const {
        std::vector<size_t> offset(bytes.size());
        std::exclusive_scan(bytes.begin(), bytes.end(), offset.begin(), size_t{0});
        for (const auto& ranks : map_->members)
            for (const int rank : ranks) {
                const auto r = static_cast<size_t>(rank);
                if (bytes[r] > 0) std::memcpy(recv + offset[r], packed, bytes[r]);
                packed += bytes[r];
            }
    }

    MpiOptions options_;
    int sharing_ = 0;
    int level_ = MPI_THREAD_SINGLE;
    OwnedComm comm_;
    std::unique_ptr<HostMap> map_;
    SharedMemory memory_;
    std::unique_ptr<SharedSegment> segment_;
    std::unique_ptr<LeaderLink> link_;
    std::vector<std::byte> gathered_;
    double deadline_seconds_ = 300;
    CommStats stats_;
};

}  // namespace

std::shared_ptr<Communicator> make_mpi(const void* mpi_comm, const MpiOptions& options) {
    int initialized = 0, level = MPI_THREAD_SINGLE, joins_two_groups = 0;
    MPI_Initialized(&initialized);
    if (initialized == 0) throw Error(ErrorCode::kUsage, "MPI has not been initialised");
    const char* problem = thread_problem(MPI_THREAD_MULTIPLE);  // finalised: asks nothing else
    if (problem == nullptr && MPI_Query_thread(&level) == MPI_SUCCESS)
        problem = thread_problem(level);
    if (problem != nullptr) throw Error(ErrorCode::kUsage, problem);
    if (mpi_comm == nullptr) throw Error(ErrorCode::kUsage, "the address of an MPI_Comm is null");
    const MPI_Comm host = *static_cast<const MPI_Comm*>(mpi_comm);
    if (host == MPI_COMM_NULL)
        throw Error(ErrorCode::kUsage, "the MPI communicator is MPI_COMM_NULL");
    CONCLAVE_MPI(MPI_Comm_test_inter(host, &joins_two_groups));
    if (joins_two_groups != 0)
        throw Error(ErrorCode::kUsage, "the MPI communicator is an intercommunicator");
    MPI_Comm own = MPI_COMM_NULL;
    CONCLAVE_MPI(MPI_Comm_dup(host, &own));
    return std::make_shared<MpiCommunicator>(OwnedComm(own), options);
}

void expect_same_mpi(size_t handle_bytes, const std::string& name) {
    if (handle_bytes == sizeof(MPI_Comm) && name == kMpiName) return;
    const auto text = [](const std::string& mpi, size_t bytes) {
        return mpi + ", whose communicators take " + std::to_string(bytes) + " bytes";
    };
    throw Error(ErrorCode::kUnsupported,
                "the program and the library were built with different MPIs; give it collectives "
                "of the program's own (conclave_comm_transport)")
        .expected(text(kMpiName, sizeof(MPI_Comm)))
        .found(text(name, handle_bytes));
}

std::shared_ptr<Communicator> make_mpi_world(const MpiOptions& options) {
    const MPI_Comm world = MPI_COMM_WORLD;
    return make_mpi(&world, options);
}

bool mpi_init_if_needed(int* argc, char*** argv) {
    int initialized = 0, finalized = 0, provided = 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    if (finalized != 0)
        throw Error(ErrorCode::kUsage, "MPI has been finalised, and cannot be initialised again");
    if (initialized != 0) return false;
    CONCLAVE_MPI(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided));
    return true;
}

void mpi_finalize() {
    int initialized = 0, finalized = 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    if (initialized != 0 && finalized == 0) CONCLAVE_MPI(MPI_Finalize());
}

}  // namespace conclave::comm
