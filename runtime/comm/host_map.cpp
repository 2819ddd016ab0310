#include "runtime/comm/host_map.h"

#include <map>
#include <utility>

namespace conclave::comm {

HostMap::HostMap(int own_rank, const std::vector<int>& leader_of,
                 std::vector<std::string> host_names)
    : rank(own_rank), names(std::move(host_names)) {
    std::map<int, int> index_of_leader;  // ranks ascend, so leaders are met in ascending order
    for (size_t r = 0; r < leader_of.size(); ++r) {
        const auto [at, fresh] =
            index_of_leader.try_emplace(leader_of[r], static_cast<int>(members.size()));
        if (fresh) members.emplace_back();
        host_of.push_back(at->second);
        auto& ranks = members[static_cast<size_t>(at->second)];
        local_rank_of.push_back(static_cast<int>(ranks.size()));
        ranks.push_back(static_cast<int>(r));
    }
    host = host_of[static_cast<size_t>(rank)];
    local_rank = local_rank_of[static_cast<size_t>(rank)];
    int next = 0;
    for (const auto& ranks : members)
        for (const int r : ranks) contiguous = contiguous && r == next++;
}

}  // namespace conclave::comm
