// CPUs and NUMA nodes that this process may use. Plain data, so that tests pretend machines.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace conclave::exec {

struct NumaNode {
    int id = 0;             ///< as the system numbers it
    std::vector<int> cpus;  ///< CPUs of it that are in the affinity mask, ascending
};

struct Topology {
    std::vector<NumaNode> nodes;  ///< only nodes with at least one allowed CPU
    /// CPUs that this process could have if nobody bound it: those online, less what a container or
    /// a batch system keeps from it (mpirun's binding does not count).
    int host_cpus = 0;
    /// False for pretended machines: threads are then not bound.
    bool bind = true;

    int cpus() const;
    /// The same machine with its nodes in another order, so that local ranks which share it do not
    /// all put their odd threads, or their only one, on the same node.
    Topology for_local_rank(int local_rank) const;
    /// The calling thread's affinity mask and /sys/devices/system/node.
    static Topology detect();
    /// A pretended machine: `nodes` nodes of `cpus_per_node` CPUs; threads are not bound.
    static Topology pretend(int nodes, int cpus_per_node);
};

/// "0-3,8,10-11" as /sys writes it -> {0,1,2,3,8,10,11}. Throws kBadContent.
std::vector<int> parse_cpulist(std::string_view text);

/// The allowed CPUs divided over the nodes that `sysfs` (/sys/devices/system/node) names. Where it
/// is absent or unreadable, one node; a CPU that no node names goes to the first.
std::vector<NumaNode> numa_nodes(const std::vector<int>& allowed, const std::string& sysfs);

/// What one rank of a host was given, for all ranks of that host.
struct RankCpus {
    uint64_t mask_hash = 0;  ///< of the affinity mask
    int cpus = 0;            ///< in the mask
};
RankCpus rank_cpus(const Topology& topology);

/// Default threads of rank `self`: its CPUs / the local ranks that share its mask, at least 1.
int default_threads(const std::vector<RankCpus>& local_ranks, int self);

/// One sentence when a rank is bound to fewer CPUs than the host could give it, with the mpirun
/// flag that cures it; empty otherwise.
std::string binding_advice(const std::vector<RankCpus>& local_ranks, int self, int host_cpus);

}  // namespace conclave::exec
