// embed_lifecycle MODE, under mpirun: what a process can do only once. Exits with 1, and says why,
// where something is not as it should be.
//   host  the host calls MPI_Init (one thread only), and MPI_Finalize too early
//   own   conclave_mpi_init and conclave_mpi_finalize
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/embed/rank.h"

extern "C" {
conclave_status conclave_comm_mpi_address(const void* mpi_comm, size_t handle_bytes,
                                          const char* mpi_name, conclave_comm** comm);
conclave_status conclave_mpi_init(int* argc, char*** argv);
conclave_status conclave_mpi_finalize(void);
}

namespace {

const std::string kModel = CONCLAVE_SOURCE_DIR "/tests/fixtures/mixtral";

void expect(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "not so: %s (%s)\n", what, conclave_last_error());
    std::exit(1);
}
#define EXPECT(condition) expect((condition), #condition)

conclave_status embed(conclave_comm** comm) {
    const MPI_Comm world = MPI_COMM_WORLD;
    return conclave_comm_mpi_address(&world, sizeof world, "Open MPI", comm);
}

struct Warnings {
    int threads = 0;
};
void log(void* user, conclave_log_level level, const char* message) {
    if (level == CONCLAVE_LOG_WARNING && std::strstr(message, "MPI_THREAD_FUNNELED") != nullptr)
        ++static_cast<Warnings*>(user)->threads;
}

int host_mode(int argc, char** argv) {
    conclave_comm* comm = nullptr;
    EXPECT(embed(&comm) == CONCLAVE_ERROR_USAGE);  // before MPI_Init
    EXPECT(std::strstr(conclave_last_error(), "not been initialised") != nullptr);
    EXPECT(conclave_mpi_finalize() == CONCLAVE_OK);  // nothing to do

    MPI_Init(&argc, &argv);
    int level = 0, rank = 0, finalized = 0;
    MPI_Query_thread(&level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    EXPECT(conclave_mpi_init(nullptr, nullptr) == CONCLAVE_OK);  // the host's stays
    EXPECT(conclave_mpi_finalize() == CONCLAVE_OK);
    MPI_Finalized(&finalized);
    EXPECT(finalized == 0);
    EXPECT(embed(&comm) == CONCLAVE_OK);
    Warnings warnings;
    conclave_engine_config config = conclave::test::config_of(kModel);
    config.log = log;
    config.log_user = &warnings;
    EXPECT(conclave::test::run_rank(config, comm).status == CONCLAVE_OK);
    if (level == MPI_THREAD_SINGLE) EXPECT(warnings.threads == (rank == 0 ? 1 : 0));

    conclave_engine* engine = nullptr;
    EXPECT(conclave_engine_create(&config, comm, &engine) == CONCLAVE_OK);
    MPI_Finalize();
    EXPECT(conclave_engine_step(engine, nullptr) == CONCLAVE_ERROR_USAGE);
    EXPECT(std::strstr(conclave_last_error(), "finalised") != nullptr);
    conclave_engine_destroy(engine);  // too late to be done well: no crash
    conclave_comm_destroy(comm);
    EXPECT(embed(&comm) == CONCLAVE_ERROR_USAGE);
    EXPECT(std::strstr(conclave_last_error(), "finalised") != nullptr);
    EXPECT(conclave_mpi_init(&argc, &argv) == CONCLAVE_ERROR_USAGE);
    return 0;
}

int own_mode(int argc, char** argv) {
    EXPECT(conclave_mpi_init(&argc, &argv) == CONCLAVE_OK);
    EXPECT(conclave_mpi_init(&argc, &argv) == CONCLAVE_OK);
    int level = 0, finalized = 0;
    MPI_Query_thread(&level);
    EXPECT(level >= MPI_THREAD_FUNNELED);
    conclave_comm* comm = nullptr;
    EXPECT(embed(&comm) == CONCLAVE_OK);
    Warnings warnings;
    conclave_engine_config config = conclave::test::config_of(kModel);
    config.log = log;
    config.log_user = &warnings;
    EXPECT(conclave::test::run_rank(config, comm).status == CONCLAVE_OK);
    EXPECT(warnings.threads == 0);
    EXPECT(conclave_comm_destroy(comm) == CONCLAVE_OK);
    EXPECT(conclave_mpi_finalize() == CONCLAVE_OK);
    MPI_Finalized(&finalized);
    EXPECT(finalized != 0);
    EXPECT(conclave_mpi_finalize() == CONCLAVE_OK);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc > 1 && std::strcmp(argv[1], "host") == 0) return host_mode(argc, argv);
    if (argc > 1 && std::strcmp(argv[1], "own") == 0) return own_mode(argc, argv);
    return 2;
}
