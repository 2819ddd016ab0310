#include "runtime/engine/model_config.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"

namespace conclave::engine {
namespace {

// Far beyond any model, small enough that products of three fit 64 bits.
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxExperts = 4096;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

}  // namespace

int64_t ModelShape::moe_layers() const {
    return std::count(moe_layer.begin(), moe_layer.end(), true);
}

ModelName model_name(const Json& config, const std::string& file) {
    ModelName name;
    if (const Json* list = find_json(config, "architectures", file)) {
        if (!list->is_array() || list->empty() || !(*list)[0].is_string())
            throw Error(ErrorCode::kBadContent, "config key 'architectures' is wrong")
                .file(file)
                .expected("a list of names")
                .found(describe_json(*list));
        name.architecture = (*list)[0].get<std::string>();
    }
    name.model_type = get_string_or(config, "model_type", "", file);
    return name;
}

ModelShape decoder_shape(const Json& c, const std::string& file, const FamilyDefaults& defaults) {
    ModelShape s;
    const ModelName name = model_name(c, file);
    s.architecture = name.architecture;
    s.model_type = name.model_type;
    s.vocab_size = get_int(c, "vocab_size", 1, kMaxVocab, file);
    s.hidden_size = get_int(c, "hidden_size", 1, kMaxWidth, file);
    s.layers = get_int(c, "num_hidden_layers", 1, kMaxLayers, file);
    s.heads = get_int(c, "num_attention_heads", 1, kMaxLayers, file);
    s.kv_heads = get_int_or(c, "num_key_value_heads", s.heads, 1, s.heads, file);
    if (s.heads % s.kv_heads)
        throw Error(ErrorCode::kBadContent, "num_key_value_heads does not divide the query heads")
            .file(file)
            .expected("a divisor of " + std::to_string(s.heads))
            .found(std::to_string(s.kv_heads));
    s.head_dim =
        get_int_or(c, "head_dim", std::max<int64_t>(s.hidden_size / s.heads, 1), 1, 4096, file);
    if (s.head_dim % 2)
        throw Error(ErrorCode::kBadContent, "head_dim is odd, rotary embedding needs pairs")
            .file(file)
            .found(std::to_string(s.head_dim));
    s.max_position_embeddings = get_int(c, "max_position_embeddings", 1, kMaxPositions, file);
    s.rms_norm_eps = static_cast<float>(get_double_or(c, "rms_norm_eps", 1e-6, 0, 1, file));
    s.attention_bias = get_bool_or(c, "attention_bias", false, file);
    s.tie_word_embeddings = get_bool_or(c, "tie_word_embeddings", false, file);
    s.moe_layer.assign(static_cast<size_t>(s.layers), false);
    s.window.assign(static_cast<size_t>(s.layers), 0);
    const std::string act = get_string_or(c, "hidden_act", "silu", file);
    if (act != "silu")
        throw Error(ErrorCode::kUnsupported, "hidden_act is not served")
            .file(file)
            .expected("silu")
            .found(act.substr(0, 64));
    s.rope = parse_rope(c, file, s.head_dim, s.max_position_embeddings, defaults.rope_theta);
    return s;
}

ModelShape dense_shape(const Json& c, const std::string& file) {
    ModelShape s = decoder_shape(c, file);
    s.intermediate_size = get_int(c, "intermediate_size", 1, kMaxWidth, file);
    return s;
}

void set_windows(ModelShape& s, const Json& c, const std::string& file,
                 bool (*slides)(int64_t, int64_t)) {
    if (!get_bool_or(c, "use_sliding_window", false, file)) return;
    const int64_t window = get_int_or(c, "sliding_window", 0, 0, kMaxPositions, file);
    const int64_t from = get_int_or(c, "max_window_layers", 0, 0, kMaxLayers, file);
    const Json* types = find_json(c, "layer_types", file);
    if (types && (!types->is_array() || static_cast<int64_t>(types->size()) != s.layers))
        throw Error(ErrorCode::kBadContent, "config key 'layer_types' is wrong")
            .file(file)
            .expected("a list of " + std::to_string(s.layers) + " names")
            .found(describe_json(*types));
    for (int64_t i = 0; i < s.layers; ++i)
        if (types ? (*types)[i] == "sliding_attention" : slides(i, from)) s.window[i] = window;
}

void set_qwen_experts(ModelShape& s, const Json& c, const std::string& file) {
    const char* experts = find_json(c, "num_experts", file) ? "num_experts" : "num_local_experts";
    s.experts = get_int(c, experts, 1, kMaxExperts, file);
    s.experts_per_token = get_int(c, "num_experts_per_tok", 1, s.experts, file);
    s.expert_width = get_int(c, "moe_intermediate_size", 1, kMaxWidth, file);
    s.norm_topk_prob = get_bool_or(c, "norm_topk_prob", false, file);
    const int64_t step = get_int_or(c, "decoder_sparse_step", 1, 1, s.layers, file);
    for (int64_t i = 0; i < s.layers; ++i) s.moe_layer[i] = (i + 1) % step == 0;
    if (find_json(c, "mlp_only_layers", file))
        for (const Json& layer : get_array(c, "mlp_only_layers", file))
            s.moe_layer[as_int(layer, "mlp_only_layers", 0, s.layers - 1, file)] = false;
    if (s.moe_layers() < s.layers)
        s.intermediate_size = get_int(c, "intermediate_size", 1, kMaxWidth, file);
}

std::vector<int32_t> eos_tokens(const Json& config, const std::string& config_file,
                                const Json& generation, const std::string& generation_file,
                                int64_t vocab_size) {
    const Json* value = find_json(generation, "eos_token_id", generation_file);
    const std::string& file = value ? generation_file : config_file;
    if (!value) value = find_json(config, "eos_token_id", config_file);
    std::vector<int32_t> ids;
    if (!value) return ids;
    const auto add = [&](const Json& id) {
        ids.push_back(static_cast<int32_t>(as_int(id, "eos_token_id", 0, vocab_size - 1, file)));
    };
    if (value->is_array())
        for (const Json& id : *value) add(id);
    else
        add(*value);
    return ids;
}

}  // namespace conclave::engine
