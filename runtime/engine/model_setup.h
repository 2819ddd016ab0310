// What a model is and how ranks will share it: everything that follows from options and JSON files,
// before a weight is touched.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "quant/quantization_config.h"
#include "runtime/engine/model.h"
#include "runtime/engine/model_files.h"
#include "runtime/engine/types.h"
#include "sharding/rank_grid.h"

namespace conclave::engine {

struct ModelSetup {
    ModelFiles files;
    const Architecture* architecture = nullptr;
    ModelShape shape;
    std::unique_ptr<quant::QuantizationConfig> format;
    sharding::LayoutChoice layout;
    quant::Activations activations = quant::Activations::kAuto;
    quant::CodeType kv_dtype = quant::CodeType::kF32;
    std::optional<quant::Imagined> dummy;
    std::vector<std::string> ignorable;  ///< the architecture's: tensors that may stay unread
};

/// For `ranks` ranks. Not collective. Throws kUsage, kMissingFile, kBadContent, kUnsupported.
ModelSetup set_up_model(const EngineOptions& options, int ranks);

/// Throws kUnsupported where the model's weights are known but nothing computes with them.
void expect_runnable(const ModelSetup& model);

}  // namespace conclave::engine
