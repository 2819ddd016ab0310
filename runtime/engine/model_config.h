// config.json, generation_config.json: what is common to the decoder models that are served.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/engine/rope.h"

namespace conclave::engine {

/// Sizes of a model, every one range-checked. Names follow architectures' config keys.
struct ModelShape {
    std::string architecture;  ///< "Qwen3MoeForCausalLM"
    std::string model_type;    ///< "qwen3_moe"
    int64_t vocab_size = 0, hidden_size = 0, layers = 0;
    int64_t heads = 0, kv_heads = 0, head_dim = 0;
    int64_t intermediate_size = 0;  ///< of dense layers
    int64_t max_position_embeddings = 0;
    int64_t sliding_window = 0;  ///< keys a query sees, its own included; 0: all
    float rms_norm_eps = 0;
    bool attention_bias = false;
    bool tie_word_embeddings = false;
    int64_t experts = 0, experts_per_token = 0, expert_width = 0;
    bool norm_topk_prob = false;
    std::vector<bool> moe_layer;  ///< per layer
    RopeSpec rope;

    int64_t moe_layers() const;
};

/// architectures[0] and model_type; empty strings where absent.
struct ModelName {
    std::string architecture, model_type;
};
ModelName model_name(const Json& config, const std::string& file);

/// Everything but experts, biases and windows. Throws kBadContent naming file and key, kUnsupported
/// for an activation or rope that is not served.
ModelShape decoder_shape(const Json& config, const std::string& file);

/// eos_token_id (a number or a list) of generation_config.json if that has one, else of
/// config.json.
std::vector<int32_t> eos_tokens(const Json& config, const std::string& config_file,
                                const Json& generation, const std::string& generation_file,
                                int64_t vocab_size);

}  // namespace conclave::engine
