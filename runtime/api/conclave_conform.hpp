// Whether formats, codecs, indexers, kernels and readers hold to what plugins promise
// (runtime/sdk/conclave/plugin.h). Standard types only.
#pragma once
#include <vector>

#include "runtime/base/error.h"
#include "runtime/engine/conformance/report.h"

namespace conclave {

/// Every law, in the order in which they are checked.
CONCLAVE_API const std::vector<ConformLaw>& conform_laws();

/// Checks the laws, each in a child process (by fork: call this from a process of one thread,
/// before MPI is initialised), so that what crashes or never ends is a broken law. A plugin stays
/// loaded until the process ends. Throws kUsage, kMissingFile, and for a checkpoint what inspect()
/// would name as the reason.
CONCLAVE_API ConformReport conform(const ConformOptions& options);

}  // namespace conclave
