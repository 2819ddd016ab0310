#include "runtime/comm/mpi_communicator.h"

#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <gtest/gtest.h>
#include <mpi.h>

#include <string>
#include <tuple>
#include <vector>

#include "tests/comm/collective_cases.h"

namespace conclave::test {
namespace {

struct Setup {
    const char* name;
    comm::MpiOptions options;
};

const Setup kSetups[] = {
    {"plain", {}},
    {"small_chunks", {.max_message_bytes = 1000, .slot_bytes = 64}},
    {"small_messages", {.max_message_bytes = 1000, .slot_bytes = 1024, .pretend_hosts = 2}},
    {"two_hosts", {.pretend_hosts = 2}},
    {"three_hosts", {.pretend_hosts = 3}},
};

class Mpi : public testing::TestWithParam<std::tuple<Setup, CollectiveCase>> {};

TEST_P(Mpi, Case) {
    const auto& [setup, test] = GetParam();
    const auto comm = comm::make_mpi_world(setup.options);
    comm->set_deadline(60);
    EXPECT_STREQ(comm->backend(), "mpi");
    const int pretended = setup.options.pretend_hosts;
    if (pretended > 0) {
        EXPECT_EQ(comm->hosts(), std::min(pretended, comm->size()));
    }
    test.body(*comm);
}

INSTANTIATE_TEST_SUITE_P(
    , Mpi, testing::Combine(testing::ValuesIn(kSetups), testing::ValuesIn(kCollectiveCases)),
    [](const auto& info) {
        return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param).name;
    });

TEST(MpiGuest, WorksOnPartOfTheWorldAndLeavesItAlone) {
    int rank = 0, size = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm part = MPI_COMM_NULL;
    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, -rank, &part);
    MPI_Errhandler before, after;
    MPI_Comm_get_errhandler(part, &before);
    // Our messages and the host's, on the same ranks, do not meet.
    int from_host = -1;
    MPI_Request request = MPI_REQUEST_NULL;
    int part_rank = 0, part_size = 0;
    MPI_Comm_rank(part, &part_rank);
    MPI_Comm_size(part, &part_size);
    if (part_rank == 0)
        MPI_Irecv(&from_host, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, part, &request);
    {
        const auto comm = comm::make_mpi(&part, {.pretend_hosts = 2});
        EXPECT_EQ(comm->size(), part_size);
        EXPECT_EQ(comm->rank(), part_rank);
        std::vector<float> data(40000, 1);
        comm->all_reduce_sum(data.data(), data.size());
        EXPECT_EQ(data, std::vector<float>(40000, static_cast<float>(part_size)));
        comm->barrier();
    }
    if (part_rank == part_size - 1) MPI_Send(&rank, 1, MPI_INT, 0, 5, part);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    if (part_rank == 0) {
        EXPECT_EQ(from_host % 2, rank % 2);
    }
    MPI_Comm_get_errhandler(part, &after);
    EXPECT_EQ(before, after);
    MPI_Errhandler_free(&before);
    MPI_Errhandler_free(&after);
    MPI_Comm_free(&part);
}

TEST(MpiGuest, ComesAndGoesOften) {
    for (int i = 0; i < 200; ++i) {
        const auto comm = comm::make_mpi_world({.pretend_hosts = i % 3});
        float one = 1;
        comm->all_reduce_sum(&one, 1);
        ASSERT_EQ(one, static_cast<float>(comm->size()));
    }
}

TEST(MpiGuest, RefusesNoCommunicator) { EXPECT_THROW(comm::make_mpi(nullptr), Error); }

TEST(MpiGuest, InitialisesOnlyOnce) { EXPECT_FALSE(comm::mpi_init_if_needed(nullptr, nullptr)); }

}  // namespace
}  // namespace conclave::test
