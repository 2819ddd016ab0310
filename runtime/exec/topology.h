// CPUs and NUMA nodes that this process may use. Plain data, so that tests pretend machines.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace conclave::exec {

struct NumaNode {
    int id = 0;             ///< as the system numbers it
    std::vector<int> cpus;  ///< CPUs of it that are in the affinity mask, ascending
};

struct Topology {
    std::vector<NumaNode> nodes;  ///< only nodes with at least one allowed CPU
    int host_cpus = 0;            ///< CPUs online on the host, allowed or not
    /// False for pretended machines: threads are then not bound.
    bool bind = true;

    int cpus() const;
    /// The calling process's affinity mask and /sys/devices/system/node.
    static Topology detect();
    /// A pretended machine: `nodes` nodes of `cpus_per_node` CPUs; threads are not bound.
    static Topology pretend(int nodes, int cpus_per_node);
};

/// What one rank of a host was given, for all ranks of that host.
struct RankCpus {
    uint64_t mask_hash = 0;  ///< of the affinity mask
    int cpus = 0;            ///< in the mask
};

/// Default threads of rank `self`: its CPUs / the local ranks that share its mask, at least 1.
int default_threads(const std::vector<RankCpus>& local_ranks, int self);

/// One sentence when a rank is bound to fewer CPUs than the host could give it, with the mpirun
/// flag that cures it; empty otherwise.
std::string binding_advice(const std::vector<RankCpus>& local_ranks, int self, int host_cpus);

}  // namespace conclave::exec
