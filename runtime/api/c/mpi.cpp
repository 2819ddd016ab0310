// What conclave_mpi.h declares, which includes <mpi.h>: only runtime/comm does that here.
#include <atomic>

#include "runtime/api/c/handles.h"
#include "runtime/api/conclave_mpi.hpp"
#include "runtime/comm/mpi_communicator.h"

extern "C" {
CONCLAVE_C_API conclave_status conclave_comm_mpi_address(const void* mpi_comm, size_t handle_bytes,
                                                         const char* mpi_name,
                                                         conclave_comm** comm);
CONCLAVE_C_API conclave_status conclave_mpi_init(int* argc, char*** argv);
CONCLAVE_C_API conclave_status conclave_mpi_finalize(void);
}

using namespace conclave;
using namespace conclave::c_api;

namespace {

/// Whether conclave_mpi_init was what initialised MPI, of which a process has one.
std::atomic<bool>& owns_mpi() {
    static std::atomic<bool> owns{false};
    return owns;
}

}  // namespace

conclave_status conclave_comm_mpi_address(const void* mpi_comm, size_t handle_bytes,
                                          const char* mpi_name, conclave_comm** comm) {
    return guarded([&] {
        expect(mpi_comm, "mpi_comm");
        expect(mpi_name, "mpi_name");
        expect(comm, "comm");
        comm::expect_same_mpi(handle_bytes, mpi_name);
        *comm = new_comm_handle(comm_from_mpi(mpi_comm));
    });
}

conclave_status conclave_mpi_init(int* argc, char*** argv) {
    return guarded([&] {
        if (comm::mpi_init_if_needed(argc, argv)) owns_mpi() = true;
    });
}

conclave_status conclave_mpi_finalize(void) {
    return guarded([&] {
        if (owns_mpi().exchange(false)) comm::mpi_finalize();
    });
}
