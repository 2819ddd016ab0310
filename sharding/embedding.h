// Token embeddings, their rows cut over ranks.
#pragma once
#include <memory>
#include <span>

#include "quant/method.h"
#include "sharding/shard_plan.h"
#include "sharding/step_context.h"

namespace conclave::sharding {

class VocabParallelEmbedding {
  public:
    /// out [ids.size(), width]: each row comes from the rank that owns it, nothing is summed.
    /// Collective; ids are within the vocabulary.
    void apply(StepContext& context, std::span<const int32_t> ids, float* out) const;

  private:
    friend class WeightBuilder;
    std::unique_ptr<quant::PackedMatrix> rows_;  ///< rows kept as stored, one after the other
    Cut cut_;
    int64_t width_ = 0;
};

/// A "kernel" that keeps rows as they are stored: a layout for lookups, it multiplies nothing.
const quant::Kernel& row_storage(const quant::Encoding& encoding);

}  // namespace conclave::sharding
