// main() of tests that run under mpirun: every rank runs every case. Rank 0 prints as usual; a
// failure elsewhere is printed with its rank. If any rank failed, all exit with 1.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdio>
#include <string>

namespace {

class FailurePrinter : public testing::EmptyTestEventListener {
  public:
    explicit FailurePrinter(int rank) : rank_(rank) {}

  private:
    void OnTestStart(const testing::TestInfo& test) override {
        name_ = std::string(test.test_suite_name()) + "." + test.name();
    }
    void OnTestPartResult(const testing::TestPartResult& result) override {
        if (!result.failed()) return;
        std::fprintf(stderr, "[rank %d] %s failed at %s:%d\n%s\n", rank_, name_.c_str(),
                     result.file_name() != nullptr ? result.file_name() : "?", result.line_number(),
                     result.message());
        std::fflush(stderr);
    }

    int rank_;
    std::string name_;
};

}  // namespace

int main(int argc, char** argv) {
    int provided = 0, rank = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    testing::InitGoogleTest(&argc, argv);
    testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
    if (rank != 0) {
        delete listeners.Release(listeners.default_result_printer());
        listeners.Append(new FailurePrinter(rank));
    }
    const int own = RUN_ALL_TESTS() != 0 ? 1 : 0;
    int worst = 0;
    MPI_Allreduce(&own, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    if (rank == 0 && own == 0 && worst != 0)
        std::fprintf(stderr, "[rank 0] passed, but another rank failed\n");
    MPI_Finalize();
    return worst;
}
