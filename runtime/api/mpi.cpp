#include "runtime/api/conclave_mpi.hpp"
#include "runtime/comm/mpi_communicator.h"

namespace conclave {

MpiSession::MpiSession(int* argc, char*** argv) : owns_(comm::mpi_init_if_needed(argc, argv)) {}
MpiSession::~MpiSession() {
    if (owns_) comm::mpi_finalize();
}
Comm MpiSession::world() const { return Comm(comm::make_mpi_world()); }

Comm comm_from_mpi(const void* mpi_comm) { return Comm(comm::make_mpi(mpi_comm)); }

}  // namespace conclave
