// An engine as its handle stands for it, and rank 0's sequences.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "runtime/api/c/config.h"

namespace conclave::c_api {

/// What is kept of a sequence until it is released.
struct SequenceRecord {
    SequenceId id = 0;
    int64_t prompt_tokens = 0;
    conclave_token_callback on_token = nullptr;
    void* token_user = nullptr;
    std::optional<TextStream> stream;  ///< where there is a tokenizer
    std::vector<int32_t> tokens;
    std::string text;
    std::vector<float> logits;
    bool keeps_logits = false;
    FinishReason finish = FinishReason::kNone;

    bool done() const { return finish != FinishReason::kNone; }
};

struct EngineObject {
    using Handle = conclave_engine;
    static constexpr Kind kKind = Kind::kEngine;

    std::shared_ptr<RankComm> ranks;
    std::optional<Engine> engine;
    std::optional<Tokenizer> tokenizer;  ///< rank 0
    bool shut_down = false;
    std::optional<Error> failed;  ///< what every collective call throws from now on
    std::map<SequenceId, std::shared_ptr<SequenceRecord>> sequences;  ///< rank 0

    std::mutex cancel_mutex;  ///< of what follows, alone: cancel comes from any thread
    std::unordered_set<SequenceId> to_cancel;

    /// Throws kUsage on other ranks, naming what only rank 0 does.
    void expect_rank_zero(const char* what) const;
    /// Throws what the engine failed with.
    void expect_well() const;
    SequenceRecord& sequence(SequenceId id);
};

/// Runs body(EngineObject&) as the only call on the engine.
template <class Body>
conclave_status on_engine(const conclave_engine* handle, Body&& body) noexcept {
    return guarded([&] {
        const auto object = object_of<EngineObject>(handle);
        const Call call(*object->ranks);
        object_of<EngineObject>(handle);  // not destroyed by another thread meanwhile
        body(*object);
    });
}

/// What a step changes of sequences, on rank 0.
void apply_cancels(EngineObject& object);
void take_outputs(EngineObject& object, const std::vector<TokenOutput>& outputs);

}  // namespace conclave::c_api
