// Qwen2-MoE (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B): biases on q, k and v, and beside the chosen
// experts a shared one, gated per token; some layers may be dense.
#include "runtime/engine/decoder.h"

namespace conclave::engine {
namespace {

ModelShape shape(const Json& c, const std::string& file) {
    ModelShape s = decoder_shape(c, file);
    set_qwen_experts(s, c, file);
    s.shared_expert_width = get_int(c, "shared_expert_intermediate_size", 1, 1 << 20, file);
    s.attention_bias = get_bool_or(c, "qkv_bias", true, file);
    set_windows(s, c, file, [](int64_t i, int64_t below) { return i % 2 == 0 && i < below; });
    return s;
}

std::unique_ptr<Model> build(const ModelShape& s, sharding::WeightBuilder& b) {
    std::vector<DecoderBlock> blocks;
    for (int64_t i = 0; i < s.layers; ++i) {
        const std::string layer = "model.layers." + std::to_string(i), mlp = layer + ".mlp";
        AttentionShape attention = attention_shape(s, i);
        attention.output_bias = false;
        DecoderBlock& block = blocks.emplace_back(decoder_block(b, layer, s, attention));
        if (s.moe_layer[i])
            block.moe = standard_moe(
                b, mlp, s,
                moe::SharedExpertSource{mlp + ".shared_expert", mlp + ".shared_expert_gate",
                                        s.shared_expert_width});
        else
            block.mlp.emplace(b, mlp, s.hidden_size, s.intermediate_size);
    }
    return standard_decoder(s, b, std::move(blocks));
}

}  // namespace

Architecture qwen2_moe() {
    return {"Qwen2MoeForCausalLM", "qwen2_moe", shape, build, standard_ignorable()};
}

}  // namespace conclave::engine
