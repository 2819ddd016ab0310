// The measured part of a prediction: a rank's slice of some layers, run by the real engine.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/comm/link_model.h"
#include "runtime/engine/types.h"

namespace conclave {

struct SliceCase {
    EngineOptions options;  ///< threads resolved
    int ranks = 1, ranks_per_host = 1;
    int ranks_here = 1;  ///< the first so many ranks run at the same time
    int64_t batch = 1;
    uint64_t memory_bytes = 0;
    double seconds = 0;
};

struct SliceMeasurement {
    std::string layout, engine;
    int64_t layers = 0, layers_measured = 0;
    uint64_t weight_bytes = 0;
    double weight_bandwidth = 0;
    double step_seconds = 0;  ///< of the whole model
    std::vector<comm::Collective>
        collectives;  ///< of one step of the whole model, one after the other
};

SliceMeasurement measure_slice(const SliceCase& slice);

}  // namespace conclave
