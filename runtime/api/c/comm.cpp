#include <vector>

#include "runtime/api/c/handles.h"

using namespace conclave;
using namespace conclave::c_api;

namespace {

/// Ranks that are threads; what a mistaken argument may cost.
constexpr int32_t kMaxLocalRanks = 1024;

void rank_and_size(const conclave_comm* comm, int32_t* value, const char* name, bool rank) {
    const auto ranks = object_of<RankComm>(comm);
    expect(value, name);
    const Call call(*ranks);
    *value = rank ? ranks->comm.rank() : ranks->comm.size();
}

}  // namespace

conclave_status conclave_comm_local(int32_t ranks, conclave_comm** comms) {
    return guarded([&] {
        expect(comms, "comms");
        if (ranks < 1 || ranks > kMaxLocalRanks)
            throw Error(ErrorCode::kUsage, "a communicator cannot have so many ranks")
                .expected("1 .. " + std::to_string(kMaxLocalRanks))
                .found(std::to_string(ranks));
        std::vector<conclave_comm*> made;
        try {
            for (Comm& comm : Comm::local(ranks)) made.push_back(new_comm_handle(std::move(comm)));
        } catch (...) {
            for (conclave_comm* handle : made) close_handle<RankComm>(handle);
            throw;
        }
        std::copy(made.begin(), made.end(), comms);
    });
}

conclave_status conclave_comm_rank(const conclave_comm* comm, int32_t* rank) {
    return guarded([&] { rank_and_size(comm, rank, "rank", true); });
}

conclave_status conclave_comm_size(const conclave_comm* comm, int32_t* size) {
    return guarded([&] { rank_and_size(comm, size, "size", false); });
}

conclave_status conclave_comm_destroy(conclave_comm* comm) {
    return guarded([&] {
        const auto ranks = object_of<RankComm>(comm);
        const Call call(*ranks);
        object_of<RankComm>(comm);  // not destroyed by another thread meanwhile
        close_handle<RankComm>(comm);
    });
}
