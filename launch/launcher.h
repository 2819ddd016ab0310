// The process that started this rank: Open MPI's mpirun, or its daemon on another host.
#pragma once

namespace conclave::launch {

/// For a rank that leaves because a peer is gone. Its launcher should then end the job; but where
/// a host has fallen silent, Open MPI's waits for it, for a quarter of an hour. So a process of its
/// own stays for `seconds` and then kills a launcher that is still there. Does nothing under
/// anything but Open MPI. It forks: call it near the end.
void outlive_launcher(int seconds) noexcept;

}  // namespace conclave::launch
