#include "launch/session.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>

#include "launch/console.h"
#include "launch/launcher.h"
#ifdef CONCLAVE_WITH_MPI
#include "runtime/api/conclave_mpi.hpp"
#endif

namespace conclave::launch {
namespace {

// The last ranks leave 5 s after an error, and mpirun ends a job in 1 or 2 s.
constexpr int kLauncherSeconds = 6;

/// Leaves without MPI_Finalize and without joining threads: a peer is gone, or stuck in a
/// collective that this rank will not enter.
[[noreturn]] void leave(int code) {
    std::fflush(nullptr);
    std::_Exit(code);
}

/// Every rank has thrown an Error: rank 0 prints its own.
int failed(const Comm& comm, const Error& error) {
    const int code = exit_code(error.code());
    if (comm.rank() == 0) Console::error(error.what());
    if (error.code() != ErrorCode::kComm) return code;
    // MPI_Finalize could wait for the peer for ever. Without its barrier, time keeps the order:
    // rank 0 prints and its exit ends the job, for which mpirun takes 1 or 2 s; if it is rank 0
    // that is lost, rank 1 speaks.
    outlive_launcher(kLauncherSeconds);
    if (comm.rank() != 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(comm.rank() == 1 ? 2500 : 5000));
        if (comm.rank() == 1) Console::error(error.what());
    }
    leave(code);
}

int guarded(const Comm& comm, const RankBody& body) {
    std::string what;
    try {
        return body(comm);
    } catch (const Error& e) {
        return failed(comm, e);
    } catch (const std::bad_alloc&) {
        what = "out of memory";
    } catch (const std::exception& e) {
        what = e.what();
    }
    // Not an error of the library's collectives: the other ranks may know nothing of it.
    if (comm.size() > 1) what += ": rank " + std::to_string(comm.rank());
    Console::error(what);
    leave(exit_code(ErrorCode::kInternal));
}

}  // namespace

bool under_launcher() {
    // Set by Open MPI's mpirun, by PMIx launchers (srun --mpi=pmix) and by Hydra.
    for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"})
        if (std::getenv(name) != nullptr) return true;
    return false;
}

int run_mpi_ranks(int* argc, char*** argv, const RankBody& body) {
#ifdef CONCLAVE_WITH_MPI
    // MPI_Finalize, in the session's destructor, returns on no rank before all have entered it:
    // rank 0 has printed by then.
    const MpiSession session(argc, argv);
    return guarded(session.world(), [&](const Comm& world) {
        name_lost_hosts(world);
        return body(world);
    });
#else
    (void)argc, (void)argv, (void)body;
    throw Error(ErrorCode::kUnsupported, "started as one of several ranks, but built without MPI");
#endif
}

int run_local_ranks(int ranks, const RankBody& body) {
    if (ranks == 1) return guarded(Comm::self(), body);
    const std::vector<Comm> comms = Comm::local(ranks);
    std::vector<int> codes(comms.size(), 0);
    std::vector<std::thread> threads;
    for (size_t r = 1; r < comms.size(); ++r)
        threads.emplace_back([&, r] { codes[r] = guarded(comms[r], body); });
    codes[0] = guarded(comms[0], body);
    for (std::thread& thread : threads) thread.join();
    return *std::max_element(codes.begin(), codes.end());
}

void together(const Comm& comm, const std::function<void()>& work) {
    std::unique_ptr<Error> failure;
    try {
        work();
    } catch (const Error& e) {
        failure = std::make_unique<Error>(e);
    }
    try {
        comm.agree(failure.get());
    } catch (const Error&) {
        if (!failure) throw;
    }
    if (failure) throw *failure;
}

Lead::~Lead() {
    if (released_) return;
    try {
        engine_.shutdown();
    } catch (const Error&) {
        // The error that ends this rank's work is already on its way.
    }
}

std::vector<TokenOutput> Lead::step() {
    released_ = true;  // what step() throws, it throws on all ranks
    std::vector<TokenOutput> outputs = engine_.step();
    released_ = false;
    return outputs;
}

void Lead::finish() {
    released_ = true;
    engine_.shutdown();
}

}  // namespace conclave::launch
