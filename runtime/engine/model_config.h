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
    float rms_norm_eps = 0;
    bool attention_bias = false;
    bool tie_word_embeddings = false;
    int64_t experts = 0, experts_per_token = 0, expert_width = 0;
    int64_t shared_expert_width = 0;
    bool norm_topk_prob = false;
    bool mlp_bias = false;
    float clip_qkv = 0;           ///< 0: none
    std::vector<bool> moe_layer;  ///< per layer
    std::vector<int64_t> window;  ///< per layer: keys a query sees, its own included; 0: all
    RopeSpec rope;

    int64_t moe_layers() const;
};

/// architectures[0] and model_type; empty strings where absent.
struct ModelName {
    std::string architecture, model_type;
};
ModelName model_name(const Json& config, const std::string& file);

/// What a family assumes where its config is silent.
struct FamilyDefaults {
    double rope_theta = 10000;
};

/// Everything but experts, biases and windows. Throws kBadContent naming file and key, kUnsupported
/// for an activation or rope that is not served.
ModelShape decoder_shape(const Json& config, const std::string& file,
                         const FamilyDefaults& defaults = {});
/// The same with intermediate_size, for models without experts.
ModelShape dense_shape(const Json& config, const std::string& file);

/// Windows of sliding_window keys where use_sliding_window is true: on the layers that layer_types
/// calls sliding_attention, or without it on those that `slides` says.
void set_windows(ModelShape& shape, const Json& config, const std::string& file,
                 bool (*slides)(int64_t layer, int64_t max_window_layers));

/// Experts of the Qwen families: counts, widths, and which layers are dense.
void set_qwen_experts(ModelShape& shape, const Json& config, const std::string& file);

/// eos_token_id (a number or a list) of generation_config.json if that has one, else of
/// config.json.
std::vector<int32_t> eos_tokens(const Json& config, const std::string& config_file,
                                const Json& generation, const std::string& generation_file,
                                int64_t vocab_size);

}  // namespace conclave::engine
