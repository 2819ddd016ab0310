// Rotary position embedding: frequencies by type (YaRN: arXiv 2309.00071; llama3: Llama 3.1).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/json.h"

namespace conclave::engine {

struct RopeSpec {
    std::vector<float> inv_freq;  ///< dim / 2 frequencies, radians per position
    float scale = 1;              ///< factor on cos and sin (YaRN's attention factor)

    int64_t half() const { return static_cast<int64_t>(inv_freq.size()); }
    /// cos, sin of position p: half() values each.
    void row(int64_t position, float* cos, float* sin) const;
};

/// From rope_parameters (transformers 5), or rope_theta and rope_scaling (transformers 4). Types
/// default, linear, llama3, yarn; any other is kUnsupported by name.
RopeSpec parse_rope(const Json& config, const std::string& file, int64_t head_dim,
                    int64_t max_position_embeddings, double default_theta = 10000);

}  // namespace conclave::engine
