// OLMoE (1B-7B): norms of q and k over their full width, optional clipping, every layer a mixture.
#include "runtime/engine/decoder.h"

namespace conclave::engine {
namespace {

ModelShape shape(const Json& c, const std::string& file) {
    ModelShape s = decoder_shape(c, file);
    s.experts = get_int(c, "num_experts", 1, 4096, file);
    s.experts_per_token = get_int(c, "num_experts_per_tok", 1, s.experts, file);
    s.expert_width = get_int(c, "intermediate_size", 1, 1 << 20, file);
    s.norm_topk_prob = get_bool_or(c, "norm_topk_prob", false, file);
    s.clip_qkv = static_cast<float>(get_double_or(c, "clip_qkv", 0, 0, 1e30, file));
    s.moe_layer.assign(s.moe_layer.size(), true);
    return s;
}

std::unique_ptr<Model> build(const ModelShape& s, sharding::WeightBuilder& b) {
    std::vector<DecoderBlock> blocks;
    for (int64_t i = 0; i < s.layers; ++i) {
        const std::string layer = "model.layers." + std::to_string(i), mlp = layer + ".mlp";
        AttentionShape attention = attention_shape(s, i);
        attention.qk_norm = QkNorm::kFullWidth;
        attention.clip = s.clip_qkv;
        DecoderBlock& block = blocks.emplace_back(decoder_block(b, layer, s, attention));
        block.moe = standard_moe(b, mlp, s);
    }
    return standard_decoder(s, b, std::move(blocks));
}

}  // namespace

Architecture olmoe() { return {"OlmoeForCausalLM", "olmoe", shape, build, standard_ignorable()}; }

}  // namespace conclave::engine
