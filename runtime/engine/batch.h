// The ragged batch of one step: prefill chunks and decode steps of any sequences, mixed.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace conclave::engine {

struct BatchSequence {
    int64_t first = 0;                ///< row of its first token in the batch
    int64_t tokens = 0;               ///< rows
    int64_t start = 0;                ///< position of the first token in the sequence
    std::span<const int32_t> blocks;  ///< its KV blocks, covering positions [0, start + tokens)
};

struct StepBatch {
    std::vector<int32_t> tokens;
    std::vector<int64_t> positions;  ///< one per token
    std::vector<BatchSequence> sequences;
    std::vector<int32_t> logit_rows;  ///< rows whose logits are wanted, ascending

    int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
};

}  // namespace conclave::engine
