#include "runtime/engine/scheduler.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/interval.h"
#include "runtime/engine/kv_cache.h"

namespace conclave::engine {
namespace {

/// Most logits of scored prompts in one step: 64 MiB on rank 0, whatever the vocabulary.
constexpr int64_t kScoredLogits = int64_t{1} << 24;

}  // namespace

Scheduler::Scheduler(const StepLimits& limits) : limits_(limits) {
    // Taken from the back: lowest first.
    for (int64_t b = limits.blocks; b-- > 0;) free_blocks_.push_back(static_cast<int32_t>(b));
    for (int64_t s = limits.max_num_seqs; s-- > 0;) free_slots_.push_back(static_cast<uint32_t>(s));
}

int64_t Scheduler::blocks_for(int64_t tokens) const { return ceil_div(tokens, kBlockTokens); }

SequenceId Scheduler::add(SequenceRequest request) {
    const int64_t prompt = static_cast<int64_t>(request.prompt.size());
    if (prompt == 0)
        throw Error(ErrorCode::kUsage, "the prompt is empty: it needs at least one token");
    for (int32_t id : request.prompt)
        if (id < 0 || id >= limits_.vocab_size)
            throw Error(ErrorCode::kUsage, "prompt has a token id outside the vocabulary")
                .expected(fmt::format("0 .. {}", limits_.vocab_size - 1))
                .found(std::to_string(id));
    if (request.max_tokens < 0)
        throw Error(ErrorCode::kUsage, "max_tokens is negative")
            .found(std::to_string(request.max_tokens));
    const int64_t room = limits_.max_model_len - (request.max_tokens > 0 ? 1 : 0);
    if (prompt > room)
        throw Error(ErrorCode::kUsage, "the prompt is too long for max_model_len")
            .expected(fmt::format("at most {} tokens", room))
            .found(std::to_string(prompt));
    auto s = std::make_unique<Sequence>();
    s->id = next_id_++;
    s->limit = request.max_tokens > limits_.max_model_len - prompt ? limits_.max_model_len
                                                                   : prompt + request.max_tokens;
    if (blocks_for(s->limit) > limits_.blocks)
        throw Error(ErrorCode::kUsage,
                    "the sequence does not fit the KV cache: raise --kv-cache-tokens")
            .expected(fmt::format("at most {} tokens", limits_.blocks * kBlockTokens))
            .found(std::to_string(s->limit));
    s->tokens = request.prompt;
    s->request = std::move(request);
    waiting_.push_back(std::move(s));
    return waiting_.back()->id;
}

void Scheduler::cancel(SequenceId id) {
    for (auto& s : waiting_)
        if (s->id == id) s->cancelled = true;
    for (auto& s : running_)
        if (s->id == id) s->cancelled = true;
}

std::vector<SequenceId> Scheduler::take_cancelled() {
    std::vector<SequenceId> gone;
    std::erase_if(waiting_, [&](const std::unique_ptr<Sequence>& s) {
        if (s->cancelled) gone.push_back(s->id);
        return s->cancelled;
    });
    std::vector<Sequence*> ended;
    for (auto& s : running_)
        if (s->cancelled) ended.push_back(s.get());
    for (Sequence* s : ended) {
        gone.push_back(s->id);
        finish(s);
    }
    return gone;
}

/// A sequence is admitted when all the blocks it may ever take are there, so that a running one
/// never waits for memory.
void Scheduler::admit(int64_t budget) {
    while (!waiting_.empty() && budget > 0 && !free_slots_.empty()) {
        Sequence& s = *waiting_.front();
        const int64_t blocks = blocks_for(s.limit);
        if (promised_ + blocks > static_cast<int64_t>(free_blocks_.size())) return;
        promised_ += blocks;
        s.slot = free_slots_.back();
        free_slots_.pop_back();
        budget -= static_cast<int64_t>(s.tokens.size());
        running_.push_back(std::move(waiting_.front()));
        waiting_.pop_front();
    }
}

void Scheduler::put(Sequence& s, int64_t tokens, StepMessage& message) {
    const int64_t end = s.computed + tokens;
    const bool reaches_end = end == static_cast<int64_t>(s.tokens.size());
    const bool in_prompt = s.computed < s.prompt_tokens();
    Planned p{&s, s.computed, tokens, LogitRows::kNone, reaches_end && s.request.max_tokens > 0};
    if (in_prompt && s.request.prompt_logits)
        p.logits = LogitRows::kAll;
    else if (p.samples)
        p.logits = LogitRows::kLast;
    StepEntry e;
    e.slot = s.slot;
    e.fresh = s.computed == 0;
    e.start = s.computed;
    e.tokens = static_cast<uint32_t>(tokens);
    e.logits = p.logits;
    while (static_cast<int64_t>(s.blocks.size()) < blocks_for(end)) {
        s.blocks.push_back(free_blocks_.back());
        message.blocks.push_back(free_blocks_.back());
        free_blocks_.pop_back();
        --promised_;
        ++e.new_blocks;
    }
    message.entries.push_back(e);
    message.tokens.insert(message.tokens.end(), s.tokens.begin() + s.computed,
                          s.tokens.begin() + end);
    planned_.push_back(p);
}

StepMessage Scheduler::plan() {
    StepMessage message;
    message.step = ++step_;
    planned_.clear();
    int64_t budget = limits_.max_num_batched_tokens;
    const auto left = [](const Sequence& s) {
        return static_cast<int64_t>(s.tokens.size()) - s.computed;
    };
    int64_t scored = std::max<int64_t>(1, kScoredLogits / limits_.vocab_size);
    int64_t pending = 0;
    for (const auto& s : running_) pending += left(*s);
    admit(budget - pending);
    for (const bool decode : {true, false})
        for (auto& s : running_) {
            if ((s->computed >= s->prompt_tokens()) != decode || budget == 0) continue;
            int64_t tokens = std::min(left(*s), budget);
            if (!decode && s->request.prompt_logits) {
                tokens = std::min(tokens, scored);
                scored -= tokens;
                if (tokens == 0) continue;
            }
            budget -= tokens;
            put(*s, tokens, message);
        }
    return message;
}

void Scheduler::commit() {
    for (const Planned& p : planned_) p.sequence->computed += p.tokens;
}

void Scheduler::finish(Sequence* sequence) {
    promised_ -= blocks_for(sequence->limit) - static_cast<int64_t>(sequence->blocks.size());
    free_blocks_.insert(free_blocks_.end(), sequence->blocks.rbegin(), sequence->blocks.rend());
    free_slots_.push_back(sequence->slot);
    std::erase_if(running_,
                  [&](const std::unique_ptr<Sequence>& s) { return s.get() == sequence; });
}

}  // namespace conclave::engine
