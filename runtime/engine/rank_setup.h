// What a rank finds out about itself and its peers before a model is built: CPUs, threads, ISA.
#pragma once
#include <string>

#include "runtime/base/cpu.h"
#include "runtime/comm/communicator.h"
#include "runtime/engine/types.h"
#include "runtime/exec/topology.h"

namespace conclave::engine {

struct RankSetup {
    exec::Topology topology;
    int threads = 1;
    CpuFeatures cpu;     ///< what all ranks have
    std::string advice;  ///< why this rank has fewer CPUs than it could, and the cure; may be empty
};

/// The most of an instruction set that kernels know and `cpu` has.
Isa best_isa(CpuFeatures cpu);

/// Collective.
RankSetup set_up_rank(comm::Communicator& comm, const EngineOptions& options);

}  // namespace conclave::engine
