// MPI for embedding programs and for the conclave command.
#pragma once
#include "runtime/api/conclave.hpp"

namespace conclave {

/// Initialises MPI (funneled) if nobody has, and finalises it if it did. One per process.
class CONCLAVE_API MpiSession {
  public:
    MpiSession(int* argc, char*** argv);
    ~MpiSession();
    MpiSession(const MpiSession&) = delete;
    MpiSession& operator=(const MpiSession&) = delete;

    /// All ranks of the job, on a communicator of our own. Collective.
    Comm world() const;

  private:
    bool owns_ = false;
};

/// `mpi_comm` points to the host's MPI_Comm, which is duplicated once and otherwise left alone.
/// Collective. (A pointer, so that this header needs no mpi.h; see conclave_mpi.h for C.)
CONCLAVE_API Comm comm_from_mpi(const void* mpi_comm);

}  // namespace conclave
