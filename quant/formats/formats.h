// The built-in checkpoint formats, one function each; registry.cpp lists them.
#pragma once
#include "quant/quantization_config.h"

namespace conclave::quant {

QuantizationFormat gptq_format();
QuantizationFormat awq_format();
QuantizationFormat auto_round_format();
QuantizationFormat marlin_format();
QuantizationFormat compressed_tensors_format();
QuantizationFormat hqq_format();
QuantizationFormat fp8_format();
QuantizationFormat modelopt_format();
QuantizationFormat quark_format();
QuantizationFormat mxfp4_format();
QuantizationFormat torchao_format();
QuantizationFormat deepspeedfp_format();
QuantizationFormat gguf_format();

}  // namespace conclave::quant
