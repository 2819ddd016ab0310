// Engines beside a host's own MPI, on parts of its ranks. Under mpirun.
#include "tests/embed/mpi_watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "runtime/api/conclave.hpp"
#include "runtime/api/conclave_mpi.hpp"
#include "runtime/comm/communicator.h"
#include "tests/embed/rank.h"

#define CONCLAVE_MPI_NAME "Open MPI"  // as conclave_mpi.h, whose <conclave.h> is the installed one
extern "C" conclave_status conclave_comm_mpi_address(const void* mpi_comm, size_t handle_bytes,
                                                     const char* mpi_name, conclave_comm** comm);

namespace conclave::test {
namespace {

const std::string kModel = CONCLAVE_SOURCE_DIR "/tests/fixtures/mixtral";

/// A communicator of the host's, on part of its ranks, with an error handler of the host's.
class HostComm {
  public:
    HostComm(int color, int key) {
        MPI_Comm_split(MPI_COMM_WORLD, color, key, &comm);
        MPI_Comm_create_errhandler(count_error, &handler_);
        MPI_Comm_set_errhandler(comm, handler_);
        MPI_Comm_rank(comm, &rank);
        MPI_Comm_size(comm, &size);
        errors() = 0;
    }
    ~HostComm() {
        MPI_Comm_free(&comm);
        MPI_Errhandler_free(&handler_);
    }
    HostComm(const HostComm&) = delete;
    HostComm& operator=(const HostComm&) = delete;

    /// Whether the handler is still there, and called for an error on this communicator.
    bool handler_works() const {
        MPI_Errhandler now;
        MPI_Comm_get_errhandler(comm, &now);
        const bool same = now == handler_;
        MPI_Errhandler_free(&now);
        const int before = errors();
        MPI_Send(&before, 1, MPI_INT, size + 5, 0, comm);  // no such rank
        return same && errors() == before + 1;
    }

    MPI_Comm comm = MPI_COMM_NULL;
    int rank = 0, size = 0;

  private:
    static int& errors() {
        static int count;
        return count;
    }
    static void count_error(MPI_Comm*, int*, ...) { ++errors(); }
    MPI_Errhandler handler_;
};

conclave_comm* embed(const MPI_Comm& comm) {
    conclave_comm* made = nullptr;
    EXPECT_EQ(conclave_comm_mpi_address(&comm, sizeof comm, CONCLAVE_MPI_NAME, &made), CONCLAVE_OK)
        << conclave_last_error();
    return made;
}

/// What is called meanwhile is the library's.
class Inside {
  public:
    explicit Inside(MPI_Comm host) {
        mpi_watch() = {};
        mpi_watch().host = host;
        mpi_watch().inside = true;
    }
    ~Inside() { mpi_watch().inside = false; }
};

int world_rank() {
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}
int world_size() {
    int size = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    return size;
}

TEST(EmbedMpi, TwoEnginesAtOnceBesideTheHostsMessages) {
    // 1 and 1, 1 and 2, 2 and 2 ranks; the upper half in reversed order.
    const int rank = world_rank(), size = world_size(), lower = size / 2;
    const HostComm half(rank < lower ? 0 : 1, rank < lower ? rank : -rank);
    std::vector<std::vector<int32_t>> expected;
    {
        const Outcome single = run_rank(config_of(kModel), nullptr);
        ASSERT_EQ(single.error, "");
        expected = single.tokens;
    }

    // Under way all the time: to the next rank of all, from anyone with any tag, large and small;
    // and on the communicator that the engine was made of.
    const int next = (rank + 1) % size;
    std::vector<int> small(1, rank), small_in(1, -1), large(200000, rank), large_in(200000, -1);
    int on_half = rank, on_half_in = -1;
    MPI_Request requests[6];
    MPI_Irecv(small_in.data(), 1, MPI_INT, MPI_ANY_SOURCE, 1, MPI_COMM_WORLD, &requests[0]);
    MPI_Irecv(large_in.data(), 200000, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, half.comm,
              &requests[1]);
    MPI_Isend(small.data(), 1, MPI_INT, next, 1, MPI_COMM_WORLD, &requests[2]);
    MPI_Irecv(&on_half_in, 1, MPI_INT, half.rank, 3, half.comm, &requests[3]);

    conclave_comm* comm = nullptr;
    Outcome outcome;
    {
        const Inside inside(half.comm);
        comm = embed(half.comm);
        ASSERT_NE(comm, nullptr);
        EXPECT_EQ(mpi_watch().host_duplicates, 1);
        conclave_engine_config config = config_of(kModel);
        outcome = run_rank(config, comm, 6);
        EXPECT_EQ(mpi_watch().host_duplicates, 1);
    }
    EXPECT_EQ(outcome.status, CONCLAVE_OK) << outcome.error;
    if (half.rank == 0) {
        EXPECT_EQ(outcome.tokens, expected);
    }
    EXPECT_TRUE(half.handler_works());

    // The any-tag receive on the host's communicator has not taken a message of the library's.
    int done = 1;
    MPI_Test(&requests[1], &done, MPI_STATUS_IGNORE);
    EXPECT_EQ(done, 0);
    MPI_Isend(large.data(), 200000, MPI_INT, (half.rank + 1) % half.size, 2, half.comm,
              &requests[4]);
    MPI_Wait(&requests[1], MPI_STATUS_IGNORE);
    MPI_Isend(&on_half, 1, MPI_INT, half.rank, 3, half.comm, &requests[5]);
    MPI_Waitall(6, requests, MPI_STATUSES_IGNORE);
    EXPECT_EQ(small_in[0], (rank + size - 1) % size);
    EXPECT_EQ(on_half_in, rank);
    EXPECT_EQ(large_in, std::vector<int>(200000, large_in[0]));
    EXPECT_EQ(conclave_comm_destroy(comm), CONCLAVE_OK);
}

TEST(EmbedMpi, OnlyADuplicateIsUsedAndAllIsGivenBack) {
    const HostComm part(world_rank() % 2, 0);
    const Inside inside(part.comm);
    for (int i = 0; i < 200; ++i) {
        conclave_comm* comm = embed(part.comm);
        ASSERT_NE(comm, nullptr);
        if (i % 40 == 0) {
            conclave_engine_config config = config_of(kModel);
            config.expert_parallel = i % 80 == 0 ? "ep" : "tp";
            EXPECT_EQ(run_rank(config, comm, 1).error, "");
        }
        ASSERT_EQ(conclave_comm_destroy(comm), CONCLAVE_OK);
        ASSERT_EQ(mpi_watch().host_duplicates, i + 1);
        ASSERT_EQ(mpi_watch().opened, mpi_watch().freed);
    }
    EXPECT_GT(mpi_watch().calls, 1000);
    EXPECT_EQ(mpi_watch().host_uses, 0);
    EXPECT_EQ(mpi_watch().world_uses, 0);
}

TEST(EmbedMpi, WhatIsNoCommunicatorIsRefused) {
    conclave_comm* comm = nullptr;
    const MPI_Comm null = MPI_COMM_NULL, world = MPI_COMM_WORLD;
    const auto refusal = [&](const void* address, size_t bytes, const char* name) {
        return conclave_comm_mpi_address(address, bytes, name, &comm);
    };
    EXPECT_EQ(refusal(&null, sizeof null, CONCLAVE_MPI_NAME), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(refusal(nullptr, sizeof null, CONCLAVE_MPI_NAME), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(refusal(&world, sizeof world, nullptr), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(refusal(&world, sizeof world, "MPICH"), CONCLAVE_ERROR_UNSUPPORTED);
    EXPECT_NE(std::string(conclave_last_error()).find("conclave_comm_transport"),
              std::string::npos);
    EXPECT_EQ(refusal(&world, 4, "Open MPI"), CONCLAVE_ERROR_UNSUPPORTED);
    if (world_size() > 1) {  // two groups
        const int lower = world_rank() < 1;
        MPI_Comm group = MPI_COMM_NULL, both = MPI_COMM_NULL;
        MPI_Comm_split(MPI_COMM_WORLD, lower, 0, &group);
        MPI_Intercomm_create(group, 0, MPI_COMM_WORLD, lower ? 1 : 0, 9, &both);
        EXPECT_EQ(refusal(&both, sizeof both, CONCLAVE_MPI_NAME), CONCLAVE_ERROR_USAGE);
        EXPECT_NE(std::string(conclave_last_error()).find("intercommunicator"), std::string::npos);
        MPI_Comm_free(&both);
        MPI_Comm_free(&group);
    }
    EXPECT_EQ(comm, nullptr);
}

TEST(EmbedMpi, OtherThreadsAreRefusedUnderFunneled) {
    int level = 0;
    MPI_Query_thread(&level);
    ASSERT_EQ(level, MPI_THREAD_FUNNELED);
    const MPI_Comm world = MPI_COMM_WORLD;
    conclave_comm* const comm = embed(world);
    conclave_engine_config config = config_of(kModel);
    conclave_engine* engine = nullptr;
    ASSERT_EQ(conclave_engine_create(&config, comm, &engine), CONCLAVE_OK) << conclave_last_error();
    std::thread([&] {
        conclave_comm* another_comm = nullptr;
        conclave_engine* another = nullptr;
        const auto refused = [](conclave_status status) {
            EXPECT_EQ(status, CONCLAVE_ERROR_USAGE);
            EXPECT_NE(std::string(conclave_last_error()).find("main thread"), std::string::npos)
                << conclave_last_error();
        };
        refused(conclave_comm_mpi_address(&world, sizeof world, CONCLAVE_MPI_NAME, &another_comm));
        refused(conclave_engine_create(&config, comm, &another));
        refused(conclave_engine_step(engine, nullptr));
        refused(conclave_engine_destroy(engine));
        refused(conclave_comm_destroy(comm));
    }).join();
    // No harm was done.
    conclave_step_info info{};
    info.struct_size = sizeof info;
    EXPECT_EQ(conclave_engine_step(engine, &info), CONCLAVE_OK) << conclave_last_error();
    EXPECT_EQ(info.sequences, 0);
    EXPECT_EQ(conclave_engine_destroy(engine), CONCLAVE_OK) << conclave_last_error();
    EXPECT_EQ(conclave_comm_destroy(comm), CONCLAVE_OK) << conclave_last_error();
}

TEST(EmbedMpi, AWaitForAStepEndsWhenOneRankIsAskedToStop) {
    if (world_size() == 1) GTEST_SKIP() << "one rank waits for nobody";
    const MPI_Comm world = MPI_COMM_WORLD;
    conclave_comm* const comm = embed(world);
    conclave_engine_config config = config_of(kModel);
    config.deadline_seconds = 0;
    std::atomic<bool> stop{false};
    config.abort_user = &stop;
    config.abort = [](void* user) -> int32_t { return *static_cast<std::atomic<bool>*>(user); };
    if (world_rank() != world_size() - 1) config.abort = nullptr;
    conclave_engine* engine = nullptr;
    ASSERT_EQ(conclave_engine_create(&config, comm, &engine), CONCLAVE_OK) << conclave_last_error();
    std::thread later([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(60));
        stop = true;
    });
    // The others wait for rank 0, which does something else: it waits for the host's word that the
    // last rank has ended. (Ranks of rank 0's host, if that is another, hear of it from rank 0.)
    const int last = world_size() - 1;
    if (world_rank() == 0)
        MPI_Recv(nullptr, 0, MPI_INT, last, 4, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    const bool follows = world_rank() != 0;
    EXPECT_EQ(follows ? conclave_engine_follow(engine) : conclave_engine_step(engine, nullptr),
              CONCLAVE_ERROR_CANCELLED);
    EXPECT_NE(std::string(conclave_last_error()).find("asked to stop"), std::string::npos);
    if (world_rank() == last) MPI_Send(nullptr, 0, MPI_INT, 0, 4, MPI_COMM_WORLD);
    later.join();
    EXPECT_EQ(conclave_engine_destroy(engine), CONCLAVE_OK);
    EXPECT_EQ(conclave_comm_destroy(comm), CONCLAVE_OK);
}

TEST(EmbedMpi, TheLibraryIsNamed) {
    const MPI_Comm world = MPI_COMM_WORLD;
    const Comm comm = comm_from_mpi(&world);
    const std::string name = comm.impl()->library();
    EXPECT_NE(name.find(", MPI_THREAD_FUNNELED"), std::string::npos) << name;
    EXPECT_TRUE(comm.impl()->advice().empty());
#if defined(OMPI_MAJOR_VERSION)
    EXPECT_EQ(name, "Open MPI " + std::to_string(OMPI_MAJOR_VERSION) + "." +
                        std::to_string(OMPI_MINOR_VERSION) + "." +
                        std::to_string(OMPI_RELEASE_VERSION) + ", MPI_THREAD_FUNNELED");
#endif
}

}  // namespace
}  // namespace conclave::test
