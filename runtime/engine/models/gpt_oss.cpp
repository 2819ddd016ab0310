// gpt-oss: its weights are declared, for inspect and dequantize; attention sinks, the clamped and
// interleaved experts and their biases are not computed yet.
#include "runtime/base/error.h"
#include "runtime/engine/decoder.h"

namespace conclave::engine {
namespace {

constexpr const char* kUnserved =
    "its weights can be inspected and dequantized; attention sinks and clamped experts are not "
    "computed";

ModelShape shape(const Json& c, const std::string& file) {
    ModelShape s = decoder_shape(c, file);
    s.experts = get_int(c, "num_local_experts", 1, 4096, file);
    s.experts_per_token = get_int(c, "num_experts_per_tok", 1, s.experts, file);
    s.expert_width = get_int(c, "intermediate_size", 1, 1 << 20, file);
    s.moe_layer.assign(s.moe_layer.size(), true);
    s.attention_bias = true;
    return s;
}

struct Layer {
    DecoderBlock block;
    sharding::ParallelLinear router;
    std::vector<sharding::ParallelLinear> gate_up, down;
    std::vector<std::vector<float>> vectors;
};

class GptOss final : public Model {
  public:
    GptOss(const ModelShape& s, sharding::WeightBuilder& b)
        : vocab_cut_(b.plan().over_ranks(s.vocab_size, sharding::kRowGranule)),
          embedding_(b.vocab_parallel_embedding("model.embed_tokens", s.vocab_size, s.hidden_size)),
          norm_(b, "model.norm", s.hidden_size, s.rms_norm_eps),
          head_(b.column_parallel("lm_head", s.vocab_size, s.hidden_size)) {
        layers_.reserve(static_cast<size_t>(s.layers));  // weights are loaded in place
        for (int64_t i = 0; i < s.layers; ++i) {
            const std::string name = "model.layers." + std::to_string(i), mlp = name + ".mlp",
                              experts = mlp + ".experts";
            Layer& l = layers_.emplace_back(Layer{
                decoder_block(b, name, s, attention_shape(s, i)),
                b.replicated({mlp + ".router"}, s.experts, s.hidden_size),
                b.stacked(experts + ".gate_up_proj", s.experts, 2 * s.expert_width, s.hidden_size),
                b.stacked(experts + ".down_proj", s.experts, s.hidden_size, s.expert_width),
                {}});
            l.vectors.push_back(b.vector(mlp + ".router.bias", s.experts));
            l.vectors.push_back(b.vector(name + ".self_attn.sinks", s.heads));
            l.vectors.push_back(
                b.matrix_of_biases(experts + ".gate_up_proj_bias", s.experts, 2 * s.expert_width));
            l.vectors.push_back(
                b.matrix_of_biases(experts + ".down_proj_bias", s.experts, s.hidden_size));
        }
    }

    std::vector<KvSpec> kv_specs(quant::CodeType dtype) const override {
        std::vector<KvSpec> specs;
        for (const Layer& l : layers_) specs.push_back(l.block.attention.kv_spec(dtype));
        return specs;
    }
    const std::vector<Interval>& vocab_cut() const override { return *vocab_cut_; }
    void forward(sharding::StepContext&, const StepBatch&, KvCache&, float*) const override {
        throw Error(ErrorCode::kUnsupported, kUnserved);
    }

  private:
    sharding::Cut vocab_cut_;
    sharding::VocabParallelEmbedding embedding_;
    std::vector<Layer> layers_;
    RmsNorm norm_;
    sharding::ParallelLinear head_;
};

std::unique_ptr<Model> build(const ModelShape& s, sharding::WeightBuilder& b) {
    return std::make_unique<GptOss>(s, b);
}

}  // namespace

Architecture gpt_oss() {
    return {"GptOssForCausalLM", "gpt_oss", shape, build, standard_ignorable(), kUnserved};
}

}  // namespace conclave::engine
