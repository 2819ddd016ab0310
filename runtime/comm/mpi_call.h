// MPI calls that throw. Included only by the sources that talk to MPI.
#pragma once
#define OMPI_SKIP_MPICXX 1  // Open MPI's and MPICH's old C++ bindings: not used, and noisy
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <string>

#include "runtime/base/error.h"

namespace conclave::comm {

inline void check_mpi(int code, const char* call) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING + 1] = {};
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw Error(ErrorCode::kComm, std::string(call) + " failed: " + text);
}

/// CONCLAVE_MPI(MPI_Barrier(comm)) throws kComm with the call and MPI's own words. The
/// communicator's error handler must be MPI_ERRORS_RETURN.
#define CONCLAVE_MPI(call) ::conclave::comm::check_mpi((call), #call)

/// An MPI_Comm of our own.
class OwnedComm {
  public:
    OwnedComm() = default;
    explicit OwnedComm(MPI_Comm comm) : comm_(comm) {
        if (comm_ != MPI_COMM_NULL) MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    }
    ~OwnedComm() {
        int finalized = 0;
        MPI_Finalized(&finalized);
        if (comm_ != MPI_COMM_NULL && finalized == 0) MPI_Comm_free(&comm_);
    }
    OwnedComm(OwnedComm&& other) noexcept : comm_(other.release()) {}
    OwnedComm& operator=(OwnedComm&&) = delete;

    MPI_Comm get() const { return comm_; }
    MPI_Comm release() {
        const MPI_Comm comm = comm_;
        comm_ = MPI_COMM_NULL;
        return comm;
    }

  private:
    MPI_Comm comm_ = MPI_COMM_NULL;
};

}  // namespace conclave::comm
