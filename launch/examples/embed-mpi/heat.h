// What the ranks without an engine do: heat that spreads along a ring, cut into a part per rank.
#pragma once
#include <mpi.h>

struct HeatResult {
    int ranks = 0, steps = 0;
    double total = 0;    // stays what it was
    double hottest = 0;  // falls towards the mean
};

/// Collective over `comm`. Cells are the same numbers at any number of ranks.
HeatResult spread_heat(MPI_Comm comm, int steps);
