// Qwen3-MoE (Qwen3-30B-A3B, 235B-A22B ...): grouped-query attention with a norm on each head's q
// and k, experts chosen by softmax over all of them; some layers may be dense.
#include "runtime/engine/decoder.h"

namespace conclave::engine {
namespace {

ModelShape shape(const Json& c, const std::string& file) {
    ModelShape s = decoder_shape(c, file);
    set_qwen_experts(s, c, file);
    set_windows(s, c, file, [](int64_t, int64_t) { return true; });
    return s;
}

std::unique_ptr<Model> build(const ModelShape& s, sharding::WeightBuilder& b) {
    std::vector<DecoderBlock> blocks;
    for (int64_t i = 0; i < s.layers; ++i) {
        const std::string layer = "model.layers." + std::to_string(i), mlp = layer + ".mlp";
        AttentionShape attention = attention_shape(s, i);
        attention.qk_norm = QkNorm::kPerHead;
        DecoderBlock& block = blocks.emplace_back(decoder_block(b, layer, s, attention));
        if (s.moe_layer[i])
            block.moe = standard_moe(b, mlp, s);
        else
            block.mlp.emplace(b, mlp, s.hidden_size, s.intermediate_size);
    }
    return standard_decoder(s, b, std::move(blocks));
}

}  // namespace

Architecture qwen3_moe() {
    return {"Qwen3MoeForCausalLM", "qwen3_moe", shape, build, standard_ignorable()};
}

}  // namespace conclave::engine
