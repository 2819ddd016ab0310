#include "runtime/engine/decoder.h"

#include <cstring>

#include <spdlog/fmt/fmt.h>

namespace conclave::engine {

using sharding::StepContext;
using sharding::WeightBuilder;

RmsNorm::RmsNorm(WeightBuilder& builder, const std::string& stem, int64_t width, float eps)
    : weight_(builder.vector(stem + ".weight", width)), eps_(eps) {}

void RmsNorm::apply(StepContext& context, const float* x, int64_t rows, float* out) const {
    const int64_t width = static_cast<int64_t>(weight_.size());
    const auto row = [&](int64_t r) {
        context.ops.rms_norm(x + r * width, weight_.data(), eps_, width, out + r * width);
    };
    // A row of 2048 takes about a third of a microsecond, waking a thread a few.
    if (rows < 16)
        for (int64_t r = 0; r < rows; ++r) row(r);
    else
        context.executor.parallel_for(rows, row);
}

DecoderModel::DecoderModel(const ModelShape& shape, sharding::VocabParallelEmbedding embedding,
                           std::vector<DecoderBlock> blocks, RmsNorm norm,
                           sharding::ParallelLinear head, sharding::Cut vocab_cut)
    : hidden_(shape.hidden_size),
      rope_(shape.rope),
      embedding_(std::move(embedding)),
      blocks_(std::move(blocks)),
      norm_(std::move(norm)),
      head_(std::move(head)),
      vocab_cut_(std::move(vocab_cut)) {}

std::vector<KvSpec> DecoderModel::kv_specs(quant::CodeType dtype) const {
    std::vector<KvSpec> specs;
    for (const DecoderBlock& b : blocks_) specs.push_back(b.attention.kv_spec(dtype));
    return specs;
}

void DecoderModel::forward(StepContext& context, const StepBatch& batch, KvCache& cache,
                           float* logits) const {
    const Workspace::Scope scope(context.workspace);
    const int64_t rows = batch.rows(), half = rope_.half();
    float* h = context.workspace.allocate<float>(rows * hidden_);
    float* normed = context.workspace.allocate<float>(rows * hidden_);
    float* delta = context.workspace.allocate<float>(rows * hidden_);
    float* cos = context.workspace.allocate<float>(rows * half);
    float* sin = context.workspace.allocate<float>(rows * half);
    for (int64_t r = 0; r < rows; ++r)
        rope_.row(batch.positions[r], cos + r * half, sin + r * half);

    context.comm.set_phase("embedding");
    embedding_.apply(context, batch.tokens, h);
    for (size_t i = 0; i < blocks_.size(); ++i) {
        const DecoderBlock& b = blocks_[i];
        context.comm.poll_abort();
        context.comm.set_phase(fmt::format("layer {} attention", i).c_str());
        b.attention_norm.apply(context, h, rows, normed);
        b.attention.apply(context, batch, {cos, sin, half}, cache, static_cast<int64_t>(i), normed,
                          delta);
        context.ops.add(delta, rows * hidden_, h);
        context.comm.set_phase(fmt::format("layer {} mlp", i).c_str());
        b.mlp_norm.apply(context, h, rows, normed);
        if (b.moe)
            b.moe->apply(context, normed, rows, delta);
        else
            b.mlp->apply(context, normed, rows, delta);
        context.ops.add(delta, rows * hidden_, h);
    }
    context.comm.set_phase("logits");
    const int64_t wanted = static_cast<int64_t>(batch.logit_rows.size());
    for (int64_t r = 0; r < wanted; ++r)
        std::memcpy(delta + r * hidden_, h + batch.logit_rows[r] * hidden_,
                    static_cast<size_t>(hidden_) * sizeof(float));
    norm_.apply(context, delta, wanted, normed);
    if (wanted == 0 || head_.local_n(0) == 0) return;
    quant::PreparedInput input(normed, hidden_, wanted, hidden_, context.ops, context.executor,
                               context.workspace);
    head_.apply(context, input, std::span<float* const>(&logits, 1));
}

AttentionShape attention_shape(const ModelShape& s, int64_t layer) {
    AttentionShape a;
    a.hidden = s.hidden_size;
    a.heads = s.heads;
    a.kv_heads = s.kv_heads;
    a.head_dim = s.head_dim;
    a.window = s.window[layer];
    a.qkv_bias = a.output_bias = s.attention_bias;
    a.eps = s.rms_norm_eps;
    return a;
}

DecoderBlock decoder_block(WeightBuilder& b, const std::string& prefix, const ModelShape& s,
                           const AttentionShape& attention) {
    return {RmsNorm(b, prefix + ".input_layernorm", s.hidden_size, s.rms_norm_eps),
            GroupedQueryAttention(b, prefix + ".self_attn", attention),
            RmsNorm(b, prefix + ".post_attention_layernorm", s.hidden_size, s.rms_norm_eps),
            {},
            {}};
}

moe::MoeLayer standard_moe(WeightBuilder& b, const std::string& mlp, const ModelShape& s,
                           const std::optional<moe::SharedExpertSource>& shared) {
    return moe::MoeLayer(b, {s.experts, s.experts_per_token, s.norm_topk_prob}, {mlp + ".gate"},
                         sharding::ExpertSource{.prefix = mlp + ".experts",
                                                .fused = mlp + ".experts",
                                                .experts = s.experts,
                                                .width = s.expert_width,
                                                .hidden = s.hidden_size},
                         shared);
}

std::unique_ptr<Model> dense_decoder(const ModelShape& s, WeightBuilder& b,
                                     AttentionShape (*attention)(const ModelShape&, int64_t)) {
    std::vector<DecoderBlock> blocks;
    for (int64_t i = 0; i < s.layers; ++i) {
        const std::string layer = fmt::format("model.layers.{}", i);
        blocks.push_back(decoder_block(b, layer, s, attention(s, i)));
        blocks.back().mlp.emplace(b, layer + ".mlp", s.hidden_size, s.intermediate_size,
                                  s.mlp_bias);
    }
    return standard_decoder(s, b, std::move(blocks));
}

std::unique_ptr<Model> standard_decoder(const ModelShape& s, WeightBuilder& b,
                                        std::vector<DecoderBlock> blocks) {
    const std::string embed = "model.embed_tokens";
    return std::make_unique<DecoderModel>(
        s, b.vocab_parallel_embedding(embed, s.vocab_size, s.hidden_size), std::move(blocks),
        RmsNorm(b, "model.norm", s.hidden_size, s.rms_norm_eps),
        b.column_parallel(s.tie_word_embeddings ? embed : "lm_head", s.vocab_size, s.hidden_size),
        b.plan().over_ranks(s.vocab_size, sharding::kRowGranule));
}

}  // namespace conclave::engine
