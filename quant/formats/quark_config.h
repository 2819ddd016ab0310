// What a quantization_config of AMD Quark says about a module.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quant/formats/pattern.h"
#include "runtime/base/json.h"

namespace conclave::quant {

enum class QuarkScheme : uint8_t { kTensor, kChannel, kGroup, kBlock };

/// How one tensor of a layer, its weight or its input, is quantized.
struct QuarkTensor {
    std::string dtype;  ///< "fp8_e4m3", "fp4", "nvfp4" (fp4 with scales in fp8), "int8" ...
    QuarkScheme scheme = QuarkScheme::kTensor;
    int64_t group = 0;                       ///< kGroup: columns
    int64_t block_rows = 0, block_cols = 0;  ///< kBlock
    bool dynamic = false;
    bool symmetric = true;
    bool powers = false;  ///< scale_format e8m0: scales are powers of two
    std::string refusal;  ///< why this is not served; empty: it is

    bool operator==(const QuarkTensor&) const = default;
};

struct QuarkLayer {
    std::optional<QuarkTensor> weight, input;
    bool operator==(const QuarkLayer&) const = default;
};

class QuarkConfigRules {
  public:
    QuarkConfigRules(const Json& config, const std::string& file);

    /// What the config says of a linear: layer_quant_config by name, then layer_type_quant_config,
    /// then the global settings. Throws kBadContent where patterns contradict each other.
    const QuarkLayer& find(const std::string& module) const;
    bool reordered() const { return reordered_; }  ///< int4 words are in AWQ's order

  private:
    std::string file_;
    QuarkLayer all_;
    std::map<std::string, QuarkLayer> exact_;
    std::vector<std::pair<Pattern, QuarkLayer>> patterns_;
    bool reordered_ = false;
};

}  // namespace conclave::quant
