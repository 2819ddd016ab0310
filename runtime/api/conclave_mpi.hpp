// MPI for embedding programs and for the conclave command.
#pragma once
#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "runtime/api/conclave.hpp"

namespace conclave {

/// Initialises MPI (funneled) if nobody has, and finalises it if it did. One per process.
class CONCLAVE_API MpiSession {
  public:
    MpiSession(int* argc, char*** argv);
    ~MpiSession();
    MpiSession(const MpiSession&) = delete;
    MpiSession& operator=(const MpiSession&) = delete;

    /// All ranks of the job, on a communicator of our own. Collective.
    Comm world() const;

  private:
    bool owns_ = false;
};

/// `mpi_comm` points to the host's MPI_Comm, which is duplicated once and otherwise left alone.
/// Collective. (A pointer, so that this header needs no mpi.h; see conclave_mpi.h for C.)
CONCLAVE_API Comm comm_from_mpi(const void* mpi_comm);

/// The hosts that this process has TCP connections with, to tell after a fault whose are gone. MPI
/// itself ends a process that loses one, or has it ended, and need not say which host it was.
class CONCLAVE_API TcpPeers {
  public:
    /// Collective. Notes what connections there are now.
    explicit TcpPeers(const Comm& comm);

    /// Hosts that all connections with have ended since, as "rank 1 (host b), rank 4 (host c)": so
    /// many bytes of `text`, which holds `size`. Calls nothing that a signal handler may not.
    size_t lost(char* text, size_t size) const noexcept;

  private:
    using Address = std::array<unsigned char, 16>;  // IPv6, or IPv4 mapped to it
    struct Host {
        std::string name;
        std::vector<Address> addresses;
    };
    static bool connected(const Host& host) noexcept;

    std::vector<Host> hosts_;
};

}  // namespace conclave
