/* Conclave over the host's MPI. The MPI_Comm type is not portable between MPIs: a host that was
 * built with another one than the library brings its own collectives (conclave_comm_transport). */
#ifndef CONCLAVE_MPI_H
#define CONCLAVE_MPI_H

#include <conclave.h>
#include <mpi.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Which MPI a program was built with: its own name in the header, as far as known. */
#if defined(OMPI_MAJOR_VERSION)
#define CONCLAVE_MPI_NAME "Open MPI"
#elif defined(MPICH_VERSION)
#define CONCLAVE_MPI_NAME "MPICH"
#else
#define CONCLAVE_MPI_NAME "another MPI"
#endif

/* What conclave_comm_mpi() is made of, for callers without a C compiler: `mpi_comm` points to an
 * MPI_Comm of `handle_bytes` bytes. */
CONCLAVE_C_API conclave_status conclave_comm_mpi_address(const void* mpi_comm, size_t handle_bytes,
                                                         const char* mpi_name,
                                                         conclave_comm** comm);

/* Collective over `mpi_comm`, which is duplicated once, here, and otherwise left alone: the library
 * talks on the duplicate only, and sets an error handler on that only. MPI must be initialised;
 * MPI_THREAD_FUNNELED suffices, and then every call on the communicator and its engine must come
 * from MPI's main thread (CONCLAVE_ERROR_USAGE from any other). With MPI_THREAD_SERIALIZED they may
 * come from any thread, while no other thread is in MPI. Destroy it before MPI_Finalize. */
static inline conclave_status conclave_comm_mpi(MPI_Comm mpi_comm, conclave_comm** comm) {
    return conclave_comm_mpi_address(&mpi_comm, sizeof mpi_comm, CONCLAVE_MPI_NAME, comm);
}

/* For programs that leave MPI to the library: MPI_Init_thread (funneled) if nobody has called it.
 */
CONCLAVE_C_API conclave_status conclave_mpi_init(int* argc, char*** argv);
/* MPI_Finalize, if conclave_mpi_init was what initialised it. */
CONCLAVE_C_API conclave_status conclave_mpi_finalize(void);

#ifdef __cplusplus
}
#endif
#endif
