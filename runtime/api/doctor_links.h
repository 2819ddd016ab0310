// How fast pairs of ranks exchange messages.
#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/api/conclave_doctor.hpp"
#include "runtime/comm/communicator.h"

namespace conclave {

/// Which pairs are measured: rounds of pairs (a < b) that have no rank in common.
struct PairPlan {
    std::vector<std::vector<std::pair<int, int>>> rounds;
    std::string left_out;

    size_t pairs() const;
};

/// `host_of`: of each rank. All pairs of up to 16 ranks; of more, those of the first ranks of up to
/// 16 hosts, and the first two ranks of each of these.
PairPlan plan_pairs(const std::vector<std::string>& host_of);

/// Collective; one pair at a time, while the others wait. The result is the same on all ranks.
std::vector<DoctorPair> measure_pairs(comm::Communicator& comm, const PairPlan& plan);

}  // namespace conclave
