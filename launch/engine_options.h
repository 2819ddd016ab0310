// From the command line to an engine.
#pragma once
#include "launch/console.h"
#include "launch/options.h"
#include "runtime/api/conclave.hpp"

namespace conclave::launch {

/// The invocation's engine options, reporting to `console`, which must outlive the engine.
EngineOptions engine_options(const Invocation& invocation, const Comm& comm, Console& console);

/// Tokens that one sequence of the model may have, from its config.json. Throws as inspect() does.
int64_t model_limit(const EngineOptions& options);

}  // namespace conclave::launch
