// What every communicator must do, whatever its backend. Each case is run by every rank.
#pragma once
#include <iterator>

#include "runtime/comm/communicator.h"

namespace conclave::test {

struct CollectiveCase {
    const char* name;
    void (*body)(comm::Communicator&);
    /// Needs waits that are not the host's: not for a transport.
    bool own_waits = false;
};

void check_identity(comm::Communicator& comm);
void check_all_reduce_sum(comm::Communicator& comm);
void check_all_reduce_max(comm::Communicator& comm);
void check_broadcast(comm::Communicator& comm);
void check_all_gather(comm::Communicator& comm);
void check_split(comm::Communicator& comm);
void check_agree(comm::Communicator& comm);
void check_together(comm::Communicator& comm);
void check_poison(comm::Communicator& comm);
void check_deadline(comm::Communicator& comm);
void check_departure(comm::Communicator& comm);
void check_abort(comm::Communicator& comm);
void check_groups(comm::Communicator& comm);
void check_many_small(comm::Communicator& comm);
void check_stats(comm::Communicator& comm);

inline constexpr CollectiveCase kCollectiveCases[] = {
    {"identity", check_identity},
    {"all_reduce_sum", check_all_reduce_sum},
    {"all_reduce_max", check_all_reduce_max},
    {"broadcast", check_broadcast},
    {"all_gather", check_all_gather},
    {"split", check_split},
    {"agree", check_agree},
    {"together", check_together},
    {"groups", check_groups},
    {"poison", check_poison, true},
    {"deadline", check_deadline, true},
    {"departure", check_departure, true},
    {"abort", check_abort, true},
    {"many_small", check_many_small},
    {"stats", check_stats},
};

}  // namespace conclave::test
