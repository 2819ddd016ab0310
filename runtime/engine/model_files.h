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
    std::string directory;  ///< that holds config.json; a self-contained checkpoint's own path
    std::string config_file, generation_file;  ///< for messages; generation_file may not exist
    /// Self-contained: its documents count, and no files beside it. Null: files count.
    std::shared_ptr<const sharding::Checkpoint> container;
    Json config;
    Json generation = Json::object();
    quant::QuantizationSource quantization;
    std::shared_ptr<const sharding::Checkpoint> checkpoint;

    /// What config.json, tokenizer.json ... say; nothing where there is no such document. Throws
    /// kBadContent where it is a file of more than `max_bytes`.
    std::optional<std::string> document(const std::string& name, uint64_t max_bytes) const;
    /// Whether there is one that can be made out.
    bool has(const std::string& name) const;
    /// Where it lies, for messages.
    std::string path_of(const std::string& name) const {
        return container ? directory : directory + (directory.ends_with('/') ? "" : "/") + name;
    }
    /// Equal on ranks that see the same configs and headers.
    uint64_t fingerprint() const;
};

/// Where a model's documents are, nothing else of it read. Throws kMissingFile, and what the reader
/// of self-contained files throws.
ModelFiles open_model_place(const std::string& path,
                            const Extensions& extensions = Extensions::built_in(),
                            const std::string& load_format = "auto");

/// `path`: a directory, a .safetensors file beside its config.json, or a .gguf file. Throws
/// kMissingFile, kBadContent. Without `weights`, the checkpoint is none and only the JSON files
/// need be there.
ModelFiles open_model_files(const std::string& path, bool weights = true,
                            const Extensions& extensions = Extensions::built_in(),
                            const std::string& load_format = "auto");

/// The format of the checkpoint. `asked` (--quantization) may name it; naming another one is
/// kUsage. A format that is not registered is kUnsupported.
std::unique_ptr<quant::QuantizationConfig> choose_format(const ModelFiles& files,
                                                         const quant::QuantizationRegistry& formats,
                                                         const std::string& asked);

}  // namespace conclave::engine
