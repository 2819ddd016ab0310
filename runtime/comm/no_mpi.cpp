#include "runtime/comm/mpi_communicator.h"

namespace conclave::comm {
namespace {

[[noreturn]] void refuse() {
    throw Error(ErrorCode::kUnsupported, "this build has no MPI (CONCLAVE_WITH_MPI is OFF)");
}

}  // namespace

std::shared_ptr<Communicator> make_mpi(const void*, const MpiOptions&) { refuse(); }
std::shared_ptr<Communicator> make_mpi_world(const MpiOptions&) { refuse(); }
void expect_same_mpi(size_t, const std::string&) { refuse(); }
bool mpi_init_if_needed(int*, char***) { refuse(); }
void mpi_finalize() {}

}  // namespace conclave::comm
