// Starts the ranks of a command and ends them: an error is printed once, by rank 0, before any
// rank exits non-zero (mpirun kills the others as soon as one has).
#pragma once
#include <functional>
#include <vector>

#include "runtime/api/conclave.hpp"

namespace conclave::launch {

/// Runs on every rank; returns the exit code of its process.
using RankBody = std::function<int(const Comm&)>;

/// Whether mpirun, srun or another launcher started this process as one of its ranks.
bool under_launcher();

int run_mpi_ranks(int* argc, char*** argv, const RankBody& body);
/// Ranks as threads of this process; one rank on the calling thread.
int run_local_ranks(int ranks, const RankBody& body);

/// Collective: runs `work` on every rank. If any throws an Error, every rank throws: its own, or
/// else that of the lowest rank that failed.
void together(const Comm& comm, const std::function<void()>& work);

/// Rank 0's side of an engine. The other ranks follow until finish(), or until this is destroyed
/// because of an error that they do not know of.
class Lead {
  public:
    explicit Lead(Engine& engine) : engine_(engine) {}
    ~Lead();
    Lead(const Lead&) = delete;
    Lead& operator=(const Lead&) = delete;

    std::vector<TokenOutput> step();
    void finish();

  private:
    Engine& engine_;
    bool released_ = false;  // the followers have left, or leave with the same error
};

}  // namespace conclave::launch
