// The format "bitsandbytes": which tensors keep a matrix, and what they mean.
//
// Served, wherever parts are fused, experts stacked in a 3-D tensor, or ranks cut the matrix:
//   4 bit: nf4 and fp4, blocks of 32 to 4096, absmax in f32 or quantized itself, kept in U8 or in
//     any wider type that the same bytes were viewed as; levels are the file's quant_map.
//   int8: rows with an SCB each; inputs by LLM.int8 with the config's llm_int8_threshold.
//   Layers without these tensors: plain weights. The tensors decide, not the config.
// Refused: int8 in the tiled orders of old GPU kernels (weight_format other than 0), nested_dtype
//   other than float32, and state that does not fit the model's matrices.
#pragma once
#include <conclave/plugin.h>

namespace bitsandbytes {

class Config final : public conclave::quant::QuantizationConfig {
  public:
    /// `host` must outlive it.
    Config(const conclave::PluginHost& host, const conclave::Json& config, const std::string& file);

    const char* name() const override { return "bitsandbytes"; }
    std::optional<conclave::quant::StoredMatrix> describe(
        const conclave::quant::MatrixSource& source,
        const conclave::quant::TensorLookup& tensors) const override;

  private:
    conclave::quant::StoredMatrix describe_4bit(const conclave::quant::MatrixSource& source,
                                                const conclave::quant::TensorLookup& tensors,
                                                const std::string& kind) const;
    conclave::quant::StoredMatrix describe_int8(const conclave::quant::MatrixSource& source,
                                                const conclave::quant::TensorLookup& tensors) const;

    const conclave::PluginHost& host_;
    float threshold_ = 6;  ///< llm_int8_threshold; 0: no outliers
};

/// A config of the days before quant_method.
bool claims(const conclave::Json& config);

/// What describe() may return.
std::vector<conclave::quant::Encoding> encodings(const conclave::PluginHost& host);

/// The levels that the library writes as quant_map.
const std::array<float, 16>& standard_levels(const std::string& kind);

}  // namespace bitsandbytes
