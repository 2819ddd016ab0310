// Ranks that are threads of this process, and the communicator of a single rank.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "runtime/comm/communicator.h"

namespace conclave::comm {

struct LocalOptions {
    size_t slot_bytes = 0;   ///< tests force small chunks; 0: as large as suits the rank count
    int ranks_per_host = 0;  ///< waits spare the CPUs as with so many ranks; 0: all
};

/// One communicator for each of `ranks` threads. Each may be used and destroyed by its own thread;
/// a rank that destroys its end while others wait for it ends their wait with kComm.
std::vector<std::unique_ptr<Communicator>> make_local(int ranks, const LocalOptions& options = {});

/// A communicator of one rank; no collective of it ever waits.
std::unique_ptr<Communicator> make_self();

}  // namespace conclave::comm
