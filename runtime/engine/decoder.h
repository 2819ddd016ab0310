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

/// down(silu(gate x) * up x), its width cut over all ranks.
class GatedMlp {
  public:
    /// prefix.{gate,up,down}_proj.
    GatedMlp(sharding::WeightBuilder& builder, const std::string& prefix, int64_t hidden,
             int64_t width);
    /// x, out [tokens, hidden], whole and equal on all ranks. Collective.
    void apply(sharding::StepContext& context, const float* x, int64_t tokens, float* out) const;

  private:
    int64_t hidden_;
    sharding::ParallelLinear gate_up_;
    sharding::RowParallelLinear down_;
};

struct DecoderBlock {
    RmsNorm attention_norm;
    GroupedQueryAttention attention;
    RmsNorm mlp_norm;
    std::optional<moe::MoeLayer> moe;  ///< exactly one of moe and mlp
    std::optional<GatedMlp> mlp;
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

/// model.embed_tokens, model.norm and lm_head (or the embedding, where tied) around `blocks`.
std::unique_ptr<Model> standard_decoder(const ModelShape& shape, sharding::WeightBuilder& builder,
                                        std::vector<DecoderBlock> blocks);

}  // namespace conclave::engine
