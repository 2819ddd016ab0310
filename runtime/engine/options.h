// Option texts to what they mean. All throw kUsage naming the option.
#pragma once
#include <optional>
#include <string>

#include "quant/quantization_config.h"
#include "runtime/engine/types.h"

namespace conclave::engine {

quant::Activations parse_activations(const std::string& text);
/// auto: f32 with f32 activations, else bf16.
quant::CodeType parse_kv_dtype(const std::string& text, quant::Activations activations);
/// --load-format dummy: the encoding of --dummy-dtype; else nothing.
std::optional<quant::Imagined> parse_dummy(const EngineOptions& options);
/// Ranges of numbers, and --tensor-parallel-size against the number of ranks.
void check_options(const EngineOptions& options, int ranks);

}  // namespace conclave::engine
