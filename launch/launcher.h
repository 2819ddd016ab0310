// The process that started this rank: Open MPI's mpirun, or its daemon on another host.
#pragma once
#include "runtime/api/conclave.hpp"

namespace conclave::launch {

/// For a rank that leaves because a peer is gone. Its launcher should then end the job; but where
/// a host has fallen silent, Open MPI's waits for it, for a quarter of an hour. So a process of its
/// own stays for `seconds` and then kills a launcher that is still there. Does nothing under
/// anything but Open MPI. It forks: call it near the end.
void outlive_launcher(int seconds) noexcept;

/// Collective. Should the launcher end this process by SIGTERM, as Open MPI's does once it has lost
/// a host, rank 0 first says which hosts are gone, if any: the launcher need not.
void name_lost_hosts(const Comm& comm);

}  // namespace conclave::launch
