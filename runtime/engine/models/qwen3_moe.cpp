// Qwen3-MoE (Qwen3-30B-A3B, 235B-A22B ...): grouped-query attention with a norm on each head's q
// and k, experts chosen by softmax over all of them; some layers may be dense.
#include <spdlog/fmt/fmt.h>

#include "runtime/engine/decoder.h"

namespace conclave::engine {
namespace {

ModelShape shape(const Json& c, const std::string& file) {
    ModelShape s = decoder_shape(c, file);
    const char* experts = find_json(c, "num_experts", file) ? "num_experts" : "num_local_experts";
    s.experts = get_int(c, experts, 1, 4096, file);
    s.experts_per_token = get_int(c, "num_experts_per_tok", 1, s.experts, file);
    s.expert_width = get_int(c, "moe_intermediate_size", 1, 1 << 20, file);
    s.norm_topk_prob = get_bool_or(c, "norm_topk_prob", false, file);
    if (get_bool_or(c, "use_sliding_window", false, file))
        s.sliding_window = get_int_or(c, "sliding_window", 0, 0, 1 << 30, file);
    const int64_t step = get_int_or(c, "decoder_sparse_step", 1, 1, s.layers, file);
    for (int64_t i = 0; i < s.layers; ++i) s.moe_layer[i] = (i + 1) % step == 0;
    if (find_json(c, "mlp_only_layers", file))
        for (const Json& layer : get_array(c, "mlp_only_layers", file))
            s.moe_layer[as_int(layer, "mlp_only_layers", 0, s.layers - 1, file)] = false;
    if (s.moe_layers() < s.layers)
        s.intermediate_size = get_int(c, "intermediate_size", 1, 1 << 20, file);
    return s;
}

std::unique_ptr<Model> build(const ModelShape& s, sharding::WeightBuilder& b) {
    std::vector<DecoderBlock> blocks;
    for (int64_t i = 0; i < s.layers; ++i) {
        const std::string p = fmt::format("model.layers.{}.", i), mlp = p + "mlp";
        blocks.push_back({RmsNorm(b, p + "input_layernorm", s.hidden_size, s.rms_norm_eps),
                          GroupedQueryAttention(b, p + "self_attn",
                                                {.hidden = s.hidden_size,
                                                 .heads = s.heads,
                                                 .kv_heads = s.kv_heads,
                                                 .head_dim = s.head_dim,
                                                 .window = s.sliding_window,
                                                 .qkv_bias = s.attention_bias,
                                                 .output_bias = s.attention_bias,
                                                 .qk_norm = true,
                                                 .eps = s.rms_norm_eps}),
                          RmsNorm(b, p + "post_attention_layernorm", s.hidden_size, s.rms_norm_eps),
                          {},
                          {}});
        if (s.moe_layer[i])
            blocks.back().moe.emplace(b,
                                      moe::RouterSpec{.experts = s.experts,
                                                      .top_k = s.experts_per_token,
                                                      .renormalize = s.norm_topk_prob},
                                      mlp + ".gate",
                                      sharding::ExpertSource{.prefix = mlp + ".experts",
                                                             .experts = s.experts,
                                                             .width = s.expert_width,
                                                             .hidden = s.hidden_size});
        else
            blocks.back().mlp.emplace(b, mlp, s.hidden_size, s.intermediate_size);
    }
    return standard_decoder(s, b, std::move(blocks));
}

}  // namespace

Architecture qwen3_moe() {
    return {"Qwen3MoeForCausalLM",
            "qwen3_moe",
            shape,
            build,
            {"*.rotary_emb.inv_freq", "lm_head.weight"}};
}

}  // namespace conclave::engine
