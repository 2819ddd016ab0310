// Ranks that are MPI processes. This header needs no <mpi.h>; without MPI in the build, every
// function but mpi_finalize throws kUnsupported.
#pragma once
#include <cstddef>
#include <memory>
#include <string>

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
/// calls to the communicator, its destruction included, from a thread that may call MPI
/// (check_thread()), before MPI_Finalize. One that is destroyed elsewhere or later is left to MPI.
/// Throws kUsage where there is no running MPI or no intracommunicator.
std::shared_ptr<Communicator> make_mpi(const void* mpi_comm, const MpiOptions& options = {});

/// The same over MPI_COMM_WORLD: for programs that own their process, never for the library.
std::shared_ptr<Communicator> make_mpi_world(const MpiOptions& options = {});

/// Throws kUnsupported where a program's MPI_Comm, and the name of its MPI as in conclave_mpi.h,
/// are not those of the library's MPI.
void expect_same_mpi(size_t handle_bytes, const std::string& name);

/// MPI_Init_thread(FUNNELED) unless MPI is initialised; true if this call did it.
bool mpi_init_if_needed(int* argc, char*** argv);
/// MPI_Finalize, unless that has been called or MPI was never initialised.
void mpi_finalize();

}  // namespace conclave::comm
