// Mixtral (8x7B, 8x22B): every layer a mixture, weights of the chosen experts always renormalised.
#include "runtime/engine/decoder.h"

namespace conclave::engine {
namespace {

ModelShape shape(const Json& c, const std::string& file) {
    ModelShape s = decoder_shape(c, file, {.rope_theta = 1e6});
    s.experts = get_int(c, "num_local_experts", 1, 4096, file);
    s.experts_per_token = get_int(c, "num_experts_per_tok", 1, s.experts, file);
    s.expert_width = get_int(c, "intermediate_size", 1, 1 << 20, file);
    s.moe_layer.assign(s.moe_layer.size(), true);
    s.window.assign(s.window.size(), get_int_or(c, "sliding_window", 0, 0, 1 << 30, file));
    return s;
}

std::unique_ptr<Model> build(const ModelShape& s, sharding::WeightBuilder& b) {
    std::vector<DecoderBlock> blocks;
    for (int64_t i = 0; i < s.layers; ++i) {
        const std::string layer = "model.layers." + std::to_string(i);
        DecoderBlock& block =
            blocks.emplace_back(decoder_block(b, layer, s, attention_shape(s, i)));
        block.moe.emplace(b, moe::RouterSpec{s.experts, s.experts_per_token, true},
                          std::vector{layer + ".block_sparse_moe.gate", layer + ".mlp.gate"},
                          sharding::ExpertSource{.prefix = layer + ".block_sparse_moe.experts",
                                                 .fused = layer + ".mlp.experts",
                                                 .gate = "w1",
                                                 .up = "w3",
                                                 .down = "w2",
                                                 .experts = s.experts,
                                                 .width = s.expert_width,
                                                 .hidden = s.hidden_size});
    }
    return standard_decoder(s, b, std::move(blocks));
}

}  // namespace

Architecture mixtral() {
    return {"MixtralForCausalLM", "mixtral", shape, build, standard_ignorable()};
}

}  // namespace conclave::engine
