// Engine, part two: steps.
#include "runtime/engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "runtime/engine/sampler.h"

namespace conclave::engine {
namespace {

double seconds_since(std::chrono::steady_clock::time_point t) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

}  // namespace

/// Rank 0's view of a step's logits, one entry per logit row.
struct Engine::Gathered {
    std::vector<std::vector<Candidate>> best;  ///< the best of all ranks together
    std::vector<float> logits;                 ///< [rows, vocabulary], where candidates == 0
};

Engine::Engine(const EngineOptions& options, std::shared_ptr<comm::Communicator> comm,
               const AdjustSetup& adjust)
    : comm_(std::move(comm)),
      log_(options.log),
      deadline_(options.deadline_seconds),
      idle_deadline_(options.idle_deadline_seconds) {
    comm_->check_thread();
    comm_->set_deadline(deadline_);
    comm_->set_abort(options.abort);
    try {
        load(options, adjust);
        expert_tp_->set_abort(options.abort);
    } catch (const Error& e) {
        // Of this rank alone: the others learn of it so.
        if (e.code() == ErrorCode::kCancelled || e.code() == ErrorCode::kHost) comm_->poison(e);
        comm_->set_abort({});
        throw;
    }
}

Engine::~Engine() { comm_->set_abort({}); }

template <class Body>
void Engine::guarded(Body&& body) {
    try {
        body();
    } catch (const Error& e) {
        comm_->poison(e);
        throw;
    } catch (const std::bad_alloc&) {
        const Error e(ErrorCode::kResource, "out of memory in a step");
        comm_->poison(e);
        throw e;
    } catch (const std::exception& e) {
        comm_->poison(Error(ErrorCode::kInternal, e.what()));
        throw;
    } catch (...) {  // the host's callbacks may throw anything
        comm_->poison(Error(ErrorCode::kHost, "a callback threw"));
        throw;
    }
}

EngineStats Engine::stats() const {
    EngineStats s = stats_;
    const comm::CommStats c = comm_->stats(), e = expert_tp_->stats();
    s.communication_bytes = c.bytes + e.bytes;
    s.communication_nanoseconds = c.nanoseconds + e.nanoseconds;
    return s;
}

SequenceId Engine::add(SequenceRequest request) {
    CONCLAVE_CHECK(scheduler_);
    validate(request.sampling, limits_.vocab_size);
    return scheduler_->add(std::move(request));
}

std::vector<TokenOutput> Engine::step() {
    CONCLAVE_CHECK(scheduler_ && !down_);
    comm_->check_thread();
    std::vector<TokenOutput> out;
    for (SequenceId id : scheduler_->take_cancelled())
        out.push_back({id, -1, FinishReason::kCancelled});
    StepMessage message = scheduler_->plan();
    stats_.step_sequences = message.entries.size();
    guarded([&] {
        const auto begin = std::chrono::steady_clock::now();
        message.candidates = message.entries.empty() ? 0 : candidates_wanted();
        exchange_step(*comm_, limits_, message);
        if (message.entries.empty()) return;
        Gathered gathered;
        run(message, gathered);
        bool prompt = false;
        for (const Planned& p : scheduler_->planned()) {
            const bool in_prompt = p.start < p.sequence->prompt_tokens();
            prompt |= in_prompt;
            if (in_prompt) stats_.prompt_tokens += static_cast<uint64_t>(p.tokens);
        }
        ++stats_.steps;
        scheduler_->commit();
        emit(gathered, out);
        (prompt ? stats_.prefill_seconds : stats_.decode_seconds) += seconds_since(begin);
    });
    return out;
}

void Engine::follow() {
    while (follow_step()) {
    }
}

bool Engine::follow_step() {
    CONCLAVE_CHECK(comm_->rank() != 0);
    comm_->check_thread();
    if (down_) return false;
    guarded([&] {
        StepMessage message;
        // Rank 0 may be idle between steps.
        comm_->set_phase("waiting for a step");
        comm_->set_deadline(idle_deadline_);
        exchange_step(*comm_, limits_, message);
        comm_->set_deadline(deadline_);
        down_ = message.shutdown;
        stats_.step_sequences = message.entries.size();
        if (message.entries.empty()) return;
        Gathered none;
        run(message, none);
    });
    return !down_;
}

void Engine::shutdown() {
    CONCLAVE_CHECK(scheduler_);
    if (down_) return;
    comm_->check_thread();
    down_ = true;
    guarded([&] {
        StepMessage message;
        message.shutdown = true;
        exchange_step(*comm_, limits_, message);
    });
}

uint32_t Engine::candidates_wanted() const {
    int64_t most = 1;
    for (const Planned& p : scheduler_->planned()) {
        const SequenceRequest& r = p.sequence->request;
        if (p.logits == LogitRows::kNone) continue;
        const bool greedy = r.sampling.temperature == 0;
        if (p.logits == LogitRows::kAll || r.output_logits || adjusts_logits(r.sampling) ||
            (!greedy && r.sampling.top_k == 0))
            return 0;
        if (!greedy) most = std::max(most, r.sampling.top_k);
    }
    return most >= limits_.vocab_size ? 0 : static_cast<uint32_t>(most);
}

void Engine::run(const StepMessage& message, Gathered& gathered) {
    const StepBatch batch = tables_->apply(message);
    const Workspace::Scope scope(workspace_);
    sharding::StepContext context{*comm_,
                                  *expert_tp_,
                                  *executor_,
                                  workspace_,
                                  quant::vector_ops(cpu_),
                                  quant::attention_kernel(cpu_),
                                  weights_->bases(&stats_.weight_bytes_read)};
    const int64_t rows = static_cast<int64_t>(batch.logit_rows.size());
    const int64_t local = model_->vocab_cut()[comm_->rank()].size();
    float* logits = workspace_.allocate<float>(rows * local);
    model_->forward(context, batch, *cache_, logits);
    if (rows > 0) gather(logits, rows, message.candidates, gathered);
}

void Engine::gather(const float* logits, int64_t rows, uint32_t candidates, Gathered& gathered) {
    comm_->set_phase("gathering logits");
    const std::vector<Interval>& cut = model_->vocab_cut();
    const Interval own = cut[comm_->rank()];
    // Every rank contributes `each(r)` items per row, row after row.
    const size_t item = candidates ? sizeof(Candidate) : sizeof(float);
    const auto each = [&](size_t r) {
        return candidates ? std::min<int64_t>(candidates, cut[r].size()) : cut[r].size();
    };
    std::vector<size_t> bytes;
    size_t total = 0;
    for (size_t r = 0; r < cut.size(); ++r) {
        bytes.push_back(static_cast<size_t>(rows * each(r)) * item);
        total += bytes.back();
    }
    std::vector<Candidate> mine;
    const void* send = logits;
    if (candidates) {
        for (int64_t row = 0; row < rows; ++row) {
            auto best = top_candidates({logits + row * own.size(), static_cast<size_t>(own.size())},
                                       static_cast<int32_t>(own.begin), candidates);
            best.resize(static_cast<size_t>(each(comm_->rank())));  // NaN gives fewer: id -1
            mine.insert(mine.end(), best.begin(), best.end());
        }
        send = mine.data();
    }
    std::byte* all = workspace_.allocate<std::byte>(static_cast<int64_t>(total));
    comm_->all_gather(send, all, bytes);
    if (comm_->rank() != 0) return;
    if (!candidates) gathered.logits.resize(static_cast<size_t>(rows * limits_.vocab_size));
    const std::byte* from = all;
    gathered.best.resize(candidates ? static_cast<size_t>(rows) : 0);
    for (size_t r = 0; r < cut.size(); ++r)
        for (int64_t row = 0; row < rows; ++row, from += static_cast<size_t>(each(r)) * item) {
            if (candidates) {
                const auto* c = reinterpret_cast<const Candidate*>(from);
                std::copy_if(c, c + each(r), std::back_inserter(gathered.best[row]),
                             [](const Candidate& x) { return x.id >= 0; });
            } else if (each(r) > 0) {
                std::memcpy(gathered.logits.data() + row * limits_.vocab_size + cut[r].begin, from,
                            static_cast<size_t>(each(r)) * item);
            }
        }
}

int32_t Engine::choose(const Sequence& s, const Gathered& gathered, int64_t row) const {
    const SamplingParams& params = s.request.sampling;
    std::vector<Candidate> candidates;
    if (!gathered.best.empty()) {
        candidates = gathered.best[row];
    } else {
        std::span<const float> logits(gathered.logits.data() + row * limits_.vocab_size,
                                      static_cast<size_t>(limits_.vocab_size));
        std::vector<float> adjusted;
        if (adjusts_logits(params)) {
            adjusted.assign(logits.begin(), logits.end());
            const auto prompt = static_cast<size_t>(s.prompt_tokens());
            const std::span<const int32_t> tokens(s.tokens);
            adjust_logits(adjusted, params, tokens.first(prompt), tokens.subspan(prompt));
            logits = adjusted;
        }
        if (params.temperature == 0)
            candidates = {argmax(logits, 0)};
        else
            candidates = top_candidates(logits, 0, params.top_k);
    }
    // The draw depends on the request's seed and the position alone: not on its neighbours, nor on
    // the number of ranks.
    return sample(std::move(candidates), params, 0, static_cast<int64_t>(s.tokens.size()));
}

void Engine::emit(const Gathered& gathered, std::vector<TokenOutput>& out) {
    int64_t row = 0;
    std::vector<Sequence*> finished;
    for (const Planned& p : scheduler_->planned()) {
        Sequence& s = *p.sequence;
        const auto logits = [&](int64_t r) {
            return std::span<const float>(gathered.logits.data() + r * limits_.vocab_size,
                                          static_cast<size_t>(limits_.vocab_size));
        };
        if (p.logits == LogitRows::kAll)
            for (int64_t i = 0; i < p.tokens; ++i)
                s.request.prompt_logits(p.start + i, logits(row + i));
        row += p.logits == LogitRows::kAll ? p.tokens : p.logits == LogitRows::kLast ? 1 : 0;
        const bool at_end = s.computed == static_cast<int64_t>(s.tokens.size());
        if (!at_end) continue;
        if (!p.samples) {  // a prompt that was only to be scored
            out.push_back({s.id, -1, FinishReason::kLength});
            finished.push_back(&s);
            continue;
        }
        if (s.request.output_logits) s.request.output_logits(s.computed - 1, logits(row - 1));
        const int32_t token = choose(s, gathered, row - 1);
        s.tokens.push_back(token);
        ++stats_.generated_tokens;
        FinishReason finish = FinishReason::kNone;
        if (!s.request.ignore_eos && std::count(eos_.begin(), eos_.end(), token))
            finish = FinishReason::kStop;
        else if (static_cast<int64_t>(s.tokens.size()) >= s.limit)
            finish = FinishReason::kLength;
        out.push_back({s.id, token, finish});
        if (finish != FinishReason::kNone) finished.push_back(&s);
    }
    for (Sequence* s : finished) scheduler_->finish(s);
}

}  // namespace conclave::engine
