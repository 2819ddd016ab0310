// Ranks that are MPI processes. This header needs no <mpi.h>; without MPI in the build, every
// function but mpi_finalize throws kUnsupported.
#pragma once
#include <cstddef>
#include <memory>

#include "runtime/comm/communicator.h"

namespace conclave::comm {

struct MpiOptions {
    /// Most bytes of one MPI message: its counts are int. Tests force small ones.
    size_t max_message_bytes = size_t{1} << 30;
    /// Of the shared memory inside a host, per rank; 0: as large as suits the rank count.
    size_t slot_bytes = 0;
    /// For tests: > 1 deals the ranks out, in turn, to so many pretended hosts, which then talk
    /// through MPI although they are one. 0: what CONCLAVE_PRETEND_HOSTS says, else the truth.
    int pretend_hosts = 0;
};

/// Collective over the MPI_Comm that `mpi_comm` points to, which is duplicated here, once, and not
/// used afterwards. The caller has initialised MPI (MPI_THREAD_FUNNELED suffices), and makes all
/// calls to the communicator, its destruction included, from the thread that may call MPI, before
/// MPI_Finalize.
std::shared_ptr<Communicator> make_mpi(const void* mpi_comm, const MpiOptions& options = {});

/// The same over MPI_COMM_WORLD: for programs that own their process, never for the library.
std::shared_ptr<Communicator> make_mpi_world(const MpiOptions& options = {});

/// MPI_Init_thread(FUNNELED) unless MPI is initialised; true if this call did it.
bool mpi_init_if_needed(int* argc, char*** argv);
/// MPI_Finalize, unless that has been called or MPI was never initialised.
void mpi_finalize();

}  // namespace conclave::comm
