// From a quantized checkpoint to a plain one. Every rank decodes what it would hold if it served
// the model, through the loaders and codecs that serve, and writes it to its place in shared files.
#pragma once
#include "runtime/comm/communicator.h"
#include "runtime/engine/types.h"

namespace conclave::engine {

/// Collective. Throws the same error on all ranks; then the files that were begun are gone.
DequantizeReport dequantize(const EngineOptions& options, const DequantizeOptions& to,
                            comm::Communicator& comm);

}  // namespace conclave::engine
