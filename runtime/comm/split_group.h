// Who ends up together in a split; the same on every backend.
#pragma once
#include <vector>

#include "runtime/comm/communicator.h"

namespace conclave::comm {

struct SplitGroup {
    int index = 0;             ///< groups are numbered by ascending color
    int position = 0;          ///< of this rank in `members`
    std::vector<int> members;  ///< ranks of the communicator that is split, by (key, rank)
};

/// Collective.
SplitGroup split_group(Communicator& comm, int color, int key);

}  // namespace conclave::comm
