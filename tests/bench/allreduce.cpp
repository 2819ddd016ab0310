// mpirun -n RANKS allreduce: microseconds of all_reduce_sum and of MPI_Allreduce, side by side, for
// 4 bytes to 64 KiB. Each figure is the median of several rounds of the slowest rank; the rounds of
// the two alternate, so that whatever else the machine does falls on both.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "runtime/comm/mpi_communicator.h"

namespace {

constexpr int kRounds = 15;

template <class Body>
double microseconds(int repeats, Body&& body) {
    MPI_Barrier(MPI_COMM_WORLD);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) body();
    const std::chrono::duration<double, std::micro> spent =
        std::chrono::steady_clock::now() - start;
    const double own = spent.count() / repeats;
    double slowest = 0;
    MPI_Allreduce(&own, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return slowest;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

void compare(conclave::comm::Communicator& comm, size_t bytes) {
    std::vector<float> data(bytes / sizeof(float)), sum(data.size());
    const int count = static_cast<int>(data.size());
    const int repeats = bytes <= 4096 ? 2000 : 500;
    std::vector<double> ours, theirs;
    for (int round = 0; round < kRounds; ++round) {
        ours.push_back(
            microseconds(repeats, [&] { comm.all_reduce_sum(data.data(), data.size()); }));
        theirs.push_back(microseconds(repeats, [&] {
            MPI_Allreduce(data.data(), sum.data(), count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        }));
    }
    if (comm.rank() == 0) std::printf("%8zu %12.2f %14.2f\n", bytes, median(ours), median(theirs));
}

}  // namespace

int main(int argc, char** argv) {
    conclave::comm::mpi_init_if_needed(&argc, &argv);
    {
        const auto comm = conclave::comm::make_mpi_world();
        if (comm->rank() == 0)
            std::printf("%d ranks on %d hosts, microseconds\n%8s %12s %14s\n", comm->size(),
                        comm->hosts(), "bytes", "all_reduce", "MPI_Allreduce");
        for (size_t bytes = 4; bytes <= 65536; bytes *= 4) compare(*comm, bytes);
        for (const size_t bytes : {8192, 32768}) compare(*comm, bytes);
    }
    conclave::comm::mpi_finalize();
}
