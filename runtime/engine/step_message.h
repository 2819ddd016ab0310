// What rank 0 tells the others of a step: one message of fixed layout, validated on arrival.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/engine/batch.h"

namespace conclave::engine {

/// Which of a sequence's rows in a step want logits.
enum class LogitRows : uint32_t { kNone, kLast, kAll };

/// One sequence's part of a step.
struct StepEntry {
    uint32_t slot = 0;        ///< row of the block table; < max_num_seqs
    uint32_t fresh = 0;       ///< 1: the slot begins a new sequence, its old blocks are forgotten
    int64_t start = 0;        ///< position of the first token
    uint32_t tokens = 0;      ///< how many of the message's tokens are its own
    uint32_t new_blocks = 0;  ///< how many of the message's blocks are appended to its table
    LogitRows logits = LogitRows::kNone;
    uint32_t reserved = 0;
};

struct StepMessage {
    uint64_t step = 0;
    bool shutdown = false;
    /// Per row with logits, the candidates that each rank contributes; 0: all logits.
    uint32_t candidates = 0;
    std::vector<StepEntry> entries;
    std::vector<int32_t> tokens;
    std::vector<int32_t> blocks;
};

/// Limits that a message must keep; the same on all ranks.
struct StepLimits {
    int64_t max_num_seqs = 0, max_num_batched_tokens = 0, max_model_len = 0;
    int64_t blocks = 0, vocab_size = 0;
};

/// Collective: rank 0 sends `message`, the others receive into it. Throws kInternal for a message
/// that breaks the limits.
void exchange_step(comm::Communicator& comm, const StepLimits& limits, StepMessage& message);

/// Block tables of the sequences in flight, the same on every rank, and the batch of a step.
class StepTables {
  public:
    explicit StepTables(const StepLimits& limits) : tables_(limits.max_num_seqs) {}
    /// Applies the message's blocks. The batch refers to this object's tables until the next call.
    StepBatch apply(const StepMessage& message);

  private:
    std::vector<std::vector<int32_t>> tables_;
};

}  // namespace conclave::engine
