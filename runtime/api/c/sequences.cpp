#include "runtime/api/c/buffers.h"
#include "runtime/api/c/callbacks.h"
#include "runtime/api/c/engine.h"

namespace conclave::c_api {
namespace {

using Record = std::shared_ptr<SequenceRecord>;

conclave_finish_reason reason_of(FinishReason finish) {
    switch (finish) {
        case FinishReason::kNone:
            return CONCLAVE_FINISH_NONE;
        case FinishReason::kStop:
            return CONCLAVE_FINISH_STOP;
        case FinishReason::kLength:
            return CONCLAVE_FINISH_LENGTH;
        case FinishReason::kCancelled:
            return CONCLAVE_FINISH_CANCELLED;
    }
    return CONCLAVE_FINISH_NONE;
}

/// What a step has told of a sequence: for its callback, after all records are up to date.
struct Told {
    Record sequence;
    int32_t token;
    size_t text_begin;  ///< of what the token adds, in the record's text
};

/// Writes an output into its sequence; false where the sequence is done without it.
bool record(EngineObject& o, SequenceRecord& s, const TokenOutput& output) {
    if (s.done()) return false;  // by a stop string: the engine's word comes a step later
    if (output.token >= 0) s.tokens.push_back(output.token);
    s.finish = output.finish;
    if (!s.stream) return true;
    if (output.token >= 0) s.text += s.stream->add(output.token);
    if (s.stream->stopped()) {
        if (!s.done()) o.engine->cancel(s.id);
        s.finish = FinishReason::kStop;
    }
    if (s.done()) s.text += s.stream->finish();
    return true;
}

void tell(const Told& told) {
    const SequenceRecord& s = *told.sequence;
    if (!s.on_token) return;
    conclave_token token = {};
    token.struct_size = sizeof token;
    token.sequence = s.id;
    token.token = told.token;
    token.finish = reason_of(s.finish);
    if (s.stream) {
        token.text = s.text.data() + told.text_begin;
        token.text_bytes = s.text.size() - told.text_begin;
    }
    expect_host("token", [&] { return s.on_token(s.token_user, &token); });
}

/// A request's logits callback, which calls the host's.
std::function<void(int64_t, std::span<const float>)> logits_callback(
    conclave_logits_callback callback, void* user, const Record& sequence) {
    if (!callback) return {};
    return [callback, user, sequence](int64_t position, std::span<const float> logits) {
        expect_host("logits", [&] {
            return callback(user, sequence->id, position, logits.data(), logits.size());
        });
    };
}

void set_callbacks(SequenceRequest& request, const SequenceOrder& order, const Record& s) {
    request.prompt_logits = logits_callback(order.on_prompt_logits, order.prompt_logits_user, s);
    request.output_logits = logits_callback(order.on_output_logits, order.output_logits_user, s);
    if (!order.keep_logits) return;
    s->keeps_logits = true;
    request.output_logits = [s, then = std::move(request.output_logits)](
                                int64_t position, std::span<const float> logits) {
        s->logits.assign(logits.begin(), logits.end());
        if (then) then(position, logits);
    };
}

SequenceId add(EngineObject& o, const conclave_sequence_config* config) {
    o.expect_rank_zero("adds sequences");
    o.expect_well();
    if (o.shut_down)
        throw Error(ErrorCode::kUsage, "the engine has shut down: it takes no more sequences");
    SequenceOrder order = order_of(config, o.engine->max_model_len(), o.engine->vocab_size());
    if (!o.tokenizer && (order.text || !order.stop.empty()))
        throw Error(ErrorCode::kUsage, std::string(order.text ? "config->text" : "config->stop") +
                                           " needs a tokenizer, and the model has none")
            .file(o.engine->model().path);
    const auto s = std::make_shared<SequenceRecord>();
    SequenceRequest& request = order.request;
    if (order.text) request.prompt = o.tokenizer->encode(*order.text);
    if (o.tokenizer) s->stream.emplace(o.tokenizer->stream(true, std::move(order.stop)));
    s->on_token = order.on_token;
    s->token_user = order.token_user;
    s->prompt_tokens = static_cast<int64_t>(request.prompt.size());
    set_callbacks(request, order, s);
    s->id = o.engine->add(std::move(request));
    try {
        o.sequences.emplace(s->id, s);
    } catch (...) {
        o.engine->cancel(s->id);
        throw;
    }
    return s->id;
}

}  // namespace

SequenceRecord& EngineObject::sequence(SequenceId id) {
    expect_rank_zero("has sequences");
    const auto at = sequences.find(id);
    if (at == sequences.end())
        throw Error(ErrorCode::kUsage, "the engine has no such sequence").found(std::to_string(id));
    return *at->second;
}

void apply_cancels(EngineObject& o) {
    std::unordered_set<SequenceId> ids;
    {
        const std::lock_guard lock(o.cancel_mutex);
        ids.swap(o.to_cancel);
    }
    for (const SequenceId id : ids)
        if (o.sequences.count(id) != 0) o.engine->cancel(id);
}

void take_outputs(EngineObject& o, const std::vector<TokenOutput>& outputs) {
    std::vector<Told> all;
    for (const TokenOutput& output : outputs) {
        const auto at = o.sequences.find(output.sequence);
        if (at == o.sequences.end()) continue;  // released
        const size_t text_begin = at->second->text.size();
        if (record(o, *at->second, output)) all.push_back({at->second, output.token, text_begin});
    }
    for (const Told& told : all) tell(told);
}

}  // namespace conclave::c_api

using namespace conclave;
using namespace conclave::c_api;

conclave_status conclave_engine_add(conclave_engine* engine, const conclave_sequence_config* config,
                                    uint64_t* sequence) {
    return on_engine(engine, [&](EngineObject& o) {
        expect(sequence, "sequence");
        *sequence = add(o, config);
    });
}

conclave_status conclave_engine_cancel(conclave_engine* engine, uint64_t sequence) {
    return guarded([&] {
        const auto object = object_of<EngineObject>(engine);
        const std::lock_guard lock(object->cancel_mutex);
        object->to_cancel.insert(sequence);
    });
}

conclave_status conclave_engine_release(conclave_engine* engine, uint64_t sequence) {
    return on_engine(engine, [&](EngineObject& o) {
        if (!o.sequence(sequence).done()) o.engine->cancel(sequence);
        o.sequences.erase(sequence);
    });
}

conclave_status conclave_engine_sequence(const conclave_engine* engine, uint64_t sequence,
                                         conclave_sequence_state* state) {
    return on_engine(engine, [&](EngineObject& o) {
        expect_struct(state, "state", "conclave_sequence_state");
        const SequenceRecord& s = o.sequence(sequence);
        conclave_sequence_state out = {};
        out.struct_size = sizeof out;
        out.prompt_tokens = s.prompt_tokens;
        out.generated_tokens = static_cast<int64_t>(s.tokens.size());
        out.finish = reason_of(s.finish);
        *state = out;
    });
}

conclave_status conclave_engine_tokens(const conclave_engine* engine, uint64_t sequence,
                                       int32_t* tokens, size_t capacity, size_t* count) {
    return on_engine(engine, [&](EngineObject& o) {
        const Buffer<int32_t> out(tokens, capacity, count, "tokens", "count");
        out.write(o.sequence(sequence).tokens);
    });
}

conclave_status conclave_engine_text(const conclave_engine* engine, uint64_t sequence, char* text,
                                     size_t capacity, size_t* bytes) {
    return on_engine(engine, [&](EngineObject& o) {
        const Buffer<char> out(text, capacity, bytes, "text", "bytes");
        const SequenceRecord& s = o.sequence(sequence);
        if (!s.stream)
            throw Error(ErrorCode::kUsage, "the model has no tokenizer: it gives token ids only")
                .file(o.engine->model().path);
        out.write_text(s.text);
    });
}

conclave_status conclave_engine_logits(const conclave_engine* engine, uint64_t sequence,
                                       float* logits, size_t capacity, size_t* count) {
    return on_engine(engine, [&](EngineObject& o) {
        const Buffer<float> out(logits, capacity, count, "logits", "count");
        const SequenceRecord& s = o.sequence(sequence);
        if (!s.keeps_logits)
            throw Error(ErrorCode::kUsage, "the sequence was added without keep_logits");
        out.write(s.logits);
    });
}
