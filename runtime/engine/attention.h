// Grouped-query attention over ranks: each holds some query heads and the KV heads they read.
#pragma once
#include <string>
#include <vector>

#include "runtime/engine/batch.h"
#include "runtime/engine/kv_cache.h"
#include "sharding/weight_builder.h"

namespace conclave::engine {

enum class QkNorm {
    kNone,
    kPerHead,    ///< RMS norm of each head's q and k (Qwen3): weights [head_dim]
    kFullWidth,  ///< one RMS norm over all heads (OLMoE): weights [heads * head_dim]
};

struct AttentionShape {
    int64_t hidden = 0, heads = 0, kv_heads = 0, head_dim = 0;
    int64_t window = 0;  ///< 0: all keys
    bool qkv_bias = false, output_bias = false;
    QkNorm qk_norm = QkNorm::kNone;  ///< before rotation
    float eps = 0;
    float clip = 0;  ///< q, k and v are limited to +-clip; 0: they are not
};

/// cos and sin of the batch's positions, [rows, half] each; made once per step.
struct RopeRows {
    const float* cos = nullptr;
    const float* sin = nullptr;
    int64_t half = 0;
};

class GroupedQueryAttention {
  public:
    /// prefix.{q,k,v,o}_proj, prefix.{q,k}_norm.
    GroupedQueryAttention(sharding::WeightBuilder& builder, const std::string& prefix,
                          const AttentionShape& shape);

    KvSpec kv_spec(quant::CodeType dtype) const;
    /// x, out [rows, hidden], whole and equal on all ranks. Writes the batch's keys and values into
    /// `layer` of the cache. Collective.
    void apply(sharding::StepContext& context, const StepBatch& batch, const RopeRows& rope,
               KvCache& cache, int64_t layer, const float* x, float* out) const;

  private:
    void normalize_whole(sharding::StepContext& context, int64_t rows, const sharding::Cut& cut,
                         const std::vector<float>& norm, float* own) const;
    void rotate_and_store(sharding::StepContext& context, const StepBatch& batch,
                          const RopeRows& rope, KvCache& cache, int64_t layer, float* q, float* k,
                          const float* v) const;
    void attend(sharding::StepContext& context, const StepBatch& batch, KvCache& cache,
                int64_t layer, const float* q, float* out) const;

    AttentionShape shape_;
    sharding::ParallelLinear qkv_;
    sharding::RowParallelLinear o_;
    std::vector<float> q_norm_, k_norm_;
    sharding::Cut q_cut_, k_cut_;  ///< elements of q and k on each rank
    Interval heads_, kv_heads_;    ///< of this rank
};

}  // namespace conclave::engine
