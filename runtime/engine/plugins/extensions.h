// What an engine knows besides its own code: formats, kernels, indexers and readers, those that
// are built in and those of plugins.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quant/kernel.h"
#include "quant/quantization_config.h"
#include "runtime/comm/communicator.h"
#include "runtime/engine/types.h"
#include "sharding/checkpoint/reader.h"
#include "sharding/shard_indexer.h"

namespace conclave::engine {

/// Immutable once it is made; shared by engines.
struct Extensions {
    quant::QuantizationRegistry formats = quant::QuantizationRegistry::built_in();
    quant::KernelRegistry kernels = quant::KernelRegistry::built_in();
    sharding::IndexerRegistry indexers = {};
    sharding::CheckpointReaders readers = sharding::CheckpointReaders::built_in();
    std::vector<std::string> plugins = {};   ///< "bitsandbytes 1.0", in order of their names
    std::vector<PluginReport> loaded = {};   ///< the same, in order of loading, and what each added
    std::vector<PluginReport> refused = {};  ///< what was found besides, and why it is not here
    /// Of plugins' indexers, for conformance: pieces to try them with.
    std::map<std::string, std::vector<quant::StoredPiece>> examples = {};

    static const Extensions& built_in();
    /// options.extensions, or what is built in.
    static const Extensions& of(const EngineOptions& options);

    /// "bitsandbytes 1.0, my-format 2.1", or "none": must be the same on all ranks.
    std::string plugin_list() const;
};

/// Collective: every rank must have loaded the plugins that rank 0 has. Throws kUsage, with what
/// the rank that differs knows of those that it lacks.
void expect_same_plugins(comm::Communicator& comm, const Extensions& extensions);

}  // namespace conclave::engine
