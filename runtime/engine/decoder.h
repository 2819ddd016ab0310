// The decoder that most models are: embedding, blocks of attention and feed-forward with RMS norms
// before each and residuals around, a last norm, a head. Residual stream and norms are f32.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "moe/moe_layer.h"
#include "runtime/engine/attention.h"
#include "runtime/engine/model.h"

namespace conclave::engine {

class RmsNorm {
  public:
    RmsNorm(sharding::WeightBuilder& builder, const std::string& stem, int64_t width, float eps);
    /// x, out [rows, width].
    void apply(sharding::StepContext& context, const float* x, int64_t rows, float* out) const;

  private:
    std::vector<float> weight_;
    float eps_;
};

struct DecoderBlock {
    RmsNorm attention_norm;
    GroupedQueryAttention attention;
    RmsNorm mlp_norm;
    std::optional<moe::MoeLayer> moe;  ///< exactly one of moe and mlp
    std::optional<moe::GatedMlp> mlp;
};

class DecoderModel final : public Model {
  public:
    DecoderModel(const ModelShape& shape, sharding::VocabParallelEmbedding embedding,
                 std::vector<DecoderBlock> blocks, RmsNorm norm, sharding::ParallelLinear head,
                 sharding::Cut vocab_cut);

    std::vector<KvSpec> kv_specs(quant::CodeType dtype) const override;
    const std::vector<Interval>& vocab_cut() const override { return *vocab_cut_; }
    void forward(sharding::StepContext& context, const StepBatch& batch, KvCache& cache,
                 float* logits) const override;

  private:
    int64_t hidden_;
    RopeSpec rope_;
    sharding::VocabParallelEmbedding embedding_;
    std::vector<DecoderBlock> blocks_;
    RmsNorm norm_;
    sharding::ParallelLinear head_;
    sharding::Cut vocab_cut_;
};

/// Attention of a layer by the shape's common fields; models change what differs.
AttentionShape attention_shape(const ModelShape& shape, int64_t layer);

/// prefix.input_layernorm, prefix.self_attn, prefix.post_attention_layernorm; the caller adds the
/// feed-forward layer.
DecoderBlock decoder_block(sharding::WeightBuilder& builder, const std::string& prefix,
                           const ModelShape& shape, const AttentionShape& attention);

/// The mixture at `mlp` under the names most families use: mlp.gate,
/// mlp.experts.E.{gate,up,down}_proj.
moe::MoeLayer standard_moe(sharding::WeightBuilder& builder, const std::string& mlp,
                           const ModelShape& shape,
                           const std::optional<moe::SharedExpertSource>& shared = {});

/// model.layers.N as blocks with a dense feed-forward layer, its attention by `attention`.
std::unique_ptr<Model> dense_decoder(const ModelShape& shape, sharding::WeightBuilder& builder,
                                     AttentionShape (*attention)(const ModelShape&, int64_t layer));

/// model.embed_tokens, model.norm and lm_head (or the embedding, where tied) around `blocks`.
std::unique_ptr<Model> standard_decoder(const ModelShape& shape, sharding::WeightBuilder& builder,
                                        std::vector<DecoderBlock> blocks);

}  // namespace conclave::engine
