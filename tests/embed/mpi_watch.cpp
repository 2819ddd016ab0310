#include "tests/embed/mpi_watch.h"

namespace conclave::test {

MpiWatch& mpi_watch() {
    static MpiWatch watch;
    return watch;
}

namespace {

void used(MPI_Comm comm) {
    MpiWatch& watch = mpi_watch();
    if (!watch.inside) return;
    ++watch.calls;
    watch.world_uses += comm == MPI_COMM_WORLD;
    watch.host_uses += comm == watch.host;
}

int opened(int code, MPI_Comm comm) {
    mpi_watch().opened += mpi_watch().inside && comm != MPI_COMM_NULL;
    return code;
}

}  // namespace
}  // namespace conclave::test

using namespace conclave::test;

extern "C" {

int MPI_Comm_dup(MPI_Comm comm, MPI_Comm* own) {
    MpiWatch& watch = mpi_watch();
    if (watch.inside && comm == watch.host)
        ++watch.host_duplicates;
    else
        used(comm);
    const int code = PMPI_Comm_dup(comm, own);
    return opened(code, *own);
}
int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm* part) {
    used(comm);
    const int code = PMPI_Comm_split(comm, color, key, part);
    return opened(code, *part);
}
int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm* part) {
    used(comm);
    const int code = PMPI_Comm_split_type(comm, type, key, info, part);
    return opened(code, *part);
}
int MPI_Comm_free(MPI_Comm* comm) {
    used(*comm);
    mpi_watch().freed += mpi_watch().inside;
    return PMPI_Comm_free(comm);
}

// Functions whose communicator is an ordinary argument: (return type is int for all).
#define WATCHED(name, parameters, comm, arguments) \
    int MPI_##name parameters {                    \
        used(comm);                                \
        return PMPI_##name arguments;              \
    }
WATCHED(Comm_rank, (MPI_Comm c, int* rank), c, (c, rank))
WATCHED(Comm_size, (MPI_Comm c, int* size), c, (c, size))
WATCHED(Comm_set_errhandler, (MPI_Comm c, MPI_Errhandler handler), c, (c, handler))
WATCHED(Barrier, (MPI_Comm c), c, (c))
WATCHED(Bcast, (void* data, int n, MPI_Datatype t, int root, MPI_Comm c), c, (data, n, t, root, c))
WATCHED(Allreduce, (const void* in, void* out, int n, MPI_Datatype t, MPI_Op op, MPI_Comm c), c,
        (in, out, n, t, op, c))
WATCHED(Allgather,
        (const void* in, int n, MPI_Datatype t, void* out, int m, MPI_Datatype u, MPI_Comm c), c,
        (in, n, t, out, m, u, c))
WATCHED(Send, (const void* data, int n, MPI_Datatype t, int to, int tag, MPI_Comm c), c,
        (data, n, t, to, tag, c))
WATCHED(Isend,
        (const void* data, int n, MPI_Datatype t, int to, int tag, MPI_Comm c, MPI_Request* r), c,
        (data, n, t, to, tag, c, r))
WATCHED(Recv, (void* data, int n, MPI_Datatype t, int from, int tag, MPI_Comm c, MPI_Status* s), c,
        (data, n, t, from, tag, c, s))
WATCHED(Irecv, (void* data, int n, MPI_Datatype t, int from, int tag, MPI_Comm c, MPI_Request* r),
        c, (data, n, t, from, tag, c, r))
WATCHED(Iprobe, (int from, int tag, MPI_Comm c, int* there, MPI_Status* s), c,
        (from, tag, c, there, s))
#undef WATCHED

}  // extern "C"
