// The files of a model directory that say what the model is.
#pragma once
#include <memory>
#include <string>

#include "quant/quantization_config.h"
#include "runtime/base/json.h"
#include "runtime/engine/plugins/extensions.h"
#include "sharding/checkpoint/reader.h"

namespace conclave::engine {

struct ModelFiles {
    std::string directory;
    std::string config_file, generation_file;  ///< paths; generation_file may not exist
    Json config;
    Json generation = Json::object();
    quant::QuantizationSource quantization;
    std::shared_ptr<const sharding::Checkpoint> checkpoint;

    /// Equal on ranks that see the same configs and headers.
    uint64_t fingerprint() const;
};

/// `path`: a directory, or a .safetensors file beside its config.json. Throws kMissingFile,
/// kBadContent. Without `weights`, the checkpoint is none and only the JSON files need be there.
ModelFiles open_model_files(const std::string& path, bool weights = true,
                            const Extensions& extensions = Extensions::built_in(),
                            const std::string& load_format = "auto");

/// The format of the checkpoint. `asked` (--quantization) may name it; naming another one is
/// kUsage. A format that is not registered is kUnsupported.
std::unique_ptr<quant::QuantizationConfig> choose_format(const ModelFiles& files,
                                                         const quant::QuantizationRegistry& formats,
                                                         const std::string& asked);

}  // namespace conclave::engine
