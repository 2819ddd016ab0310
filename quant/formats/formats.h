// The built-in checkpoint formats, one function each; registry.cpp lists them.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "quant/quantization_config.h"

namespace conclave::quant {

QuantizationFormat gptq_format();
QuantizationFormat awq_format();
QuantizationFormat auto_round_format();
QuantizationFormat marlin_format();
QuantizationFormat compressed_tensors_format();
QuantizationFormat hqq_format();

/// Marlin tensors under a gptq or awq config that says so; `group` <= 0: one group spans K.
std::unique_ptr<QuantizationConfig> marlin_config(const nlohmann::json& config,
                                                  const std::string& file, int64_t group);

}  // namespace conclave::quant
