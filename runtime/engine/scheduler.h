// Continuous batching on rank 0: which sequences go into the next step, with which tokens and KV
// blocks. Decode steps first, then prefill in chunks, within the step's budget of tokens.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "runtime/engine/step_message.h"
#include "runtime/engine/types.h"

namespace conclave::engine {

struct Sequence {
    SequenceId id = 0;
    SequenceRequest request;
    std::vector<int32_t> tokens;  ///< prompt, then what was generated
    int64_t computed = 0;         ///< positions whose keys and values are in the cache
    int64_t limit = 0;            ///< tokens at which it ends
    uint32_t slot = 0;
    std::vector<int32_t> blocks;
    bool cancelled = false;

    int64_t prompt_tokens() const { return static_cast<int64_t>(request.prompt.size()); }
    int64_t generated() const { return static_cast<int64_t>(tokens.size()) - prompt_tokens(); }
};

/// A sequence's part of the step that was just planned.
struct Planned {
    Sequence* sequence;
    int64_t start, tokens;
    LogitRows logits;
    bool samples;  ///< its last row gives the next token
};

class Scheduler {
  public:
    explicit Scheduler(const StepLimits& limits);

    /// Throws kUsage for an empty prompt, an id outside the vocabulary, or one that cannot fit.
    SequenceId add(SequenceRequest request);
    void cancel(SequenceId id);
    bool has_work() const { return !waiting_.empty() || !running_.empty(); }

    /// Sequences cancelled since the last call, now gone.
    std::vector<SequenceId> take_cancelled();
    /// The next step; planned() tells what it does. No entries: nothing to do.
    StepMessage plan();
    const std::vector<Planned>& planned() const { return planned_; }
    /// The planned step ran: its tokens are in the cache.
    void commit();
    void finish(Sequence* sequence);

  private:
    void admit(int64_t budget);
    void put(Sequence& s, int64_t tokens, StepMessage& message);
    int64_t blocks_for(int64_t tokens) const;

    StepLimits limits_;
    std::deque<std::unique_ptr<Sequence>> waiting_;
    std::vector<std::unique_ptr<Sequence>> running_;
    std::vector<int32_t> free_blocks_;
    std::vector<uint32_t> free_slots_;
    int64_t promised_ = 0;  ///< blocks that running sequences may still take
    std::vector<Planned> planned_;
    SequenceId next_id_ = 1;
    uint64_t step_ = 0;
};

}  // namespace conclave::engine
