// `conclave conform`: every law, for all that a plugin registers, or for what is built in.
#pragma once
#include <vector>

#include "runtime/engine/conformance/report.h"

namespace conclave::engine::conformance {

const std::vector<ConformLaw>& laws();

/// Throws kUsage for a law or format that is not there, kMissingFile, and what opening the
/// checkpoint throws. Loads the plugin, which stays; forks: not to be called with other threads.
ConformReport conform(const ConformOptions& options);

}  // namespace conclave::engine::conformance
