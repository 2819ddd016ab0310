// Which ranks of a communicator share a host.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace conclave::comm {

struct HostMap {
    /// `leader_of[r]`: the lowest rank on rank r's host. `names[r]`: that host's name.
    HostMap(int rank, const std::vector<int>& leader_of, std::vector<std::string> names);

    int hosts() const { return static_cast<int>(members.size()); }
    const std::vector<int>& own() const { return members[static_cast<size_t>(host)]; }
    int leader(int h) const { return members[static_cast<size_t>(h)].front(); }
    bool leads() const { return local_rank == 0; }

    int rank = 0;                           ///< this one
    int host = 0;                           ///< this rank's; hosts are ordered by their lowest rank
    int local_rank = 0;                     ///< position in own(); the leader's is 0
    std::vector<std::vector<int>> members;  ///< ranks of each host, ascending
    std::vector<int> host_of;               ///< for each rank
    std::vector<int> local_rank_of;         ///< for each rank
    std::vector<std::string> names;         ///< for each rank
    bool contiguous = true;  ///< the hosts' ranks, one host after the other, are 0, 1, 2 ...
};

}  // namespace conclave::comm
