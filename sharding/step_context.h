// What layers need in a step. Made anew by the engine for each step; nothing is kept from it.
#pragma once
#include "quant/kernels/attention/op.h"
#include "quant/kernels/vector_ops/op.h"
#include "quant/method.h"
#include "runtime/base/executor.h"
#include "runtime/base/workspace.h"
#include "runtime/comm/communicator.h"

namespace conclave::sharding {

struct StepContext {
    comm::Communicator& comm;       ///< all ranks of the engine
    comm::Communicator& expert_tp;  ///< the ranks that share this rank's experts
    Executor& executor;
    Workspace& workspace;
    const quant::VectorOps& ops;
    quant::AttentionFn attention;
    quant::WeightBases bases;
};

}  // namespace conclave::sharding
