// Stands between the program and MPI (its profiling interface), and notes what is called while
// `inside`: which communicators the library opens, frees and talks on.
#pragma once
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

namespace conclave::test {

struct MpiWatch {
    bool inside = false;
    MPI_Comm host = MPI_COMM_NULL;  ///< what the library was given
    int opened = 0, freed = 0;
    int host_duplicates = 0;
    int host_uses = 0;   ///< of `host`, but for duplicating it and asking what it is
    int world_uses = 0;  ///< of MPI_COMM_WORLD
    int calls = 0;       ///< of all functions that are watched
};

MpiWatch& mpi_watch();

}  // namespace conclave::test
