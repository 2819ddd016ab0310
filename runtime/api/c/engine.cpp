#include "runtime/api/c/engine.h"

#include "runtime/comm/communicator.h"

namespace conclave::c_api {

void EngineObject::expect_rank_zero(const char* what) const {
    if (engine->rank() != 0)
        throw Error(ErrorCode::kUsage, std::string("only rank 0 ") + what).rank(engine->rank());
}

void EngineObject::expect_well() const {
    if (failed) throw *failed;
}

namespace {

/// The part of a collective call that can fail on this rank. What is thrown ends the engine, on all
/// ranks.
template <class Body>
void collective(EngineObject& o, Body&& body) {
    o.expect_well();
    try {
        body();
    } catch (...) {
        o.failed = current_error();
        o.engine->fail(*o.failed);
        throw *o.failed;
    }
}

/// Takes the host's abort callback off a communicator on which no engine came to be.
struct AbortRemover {
    Comm comm;
    bool armed = true;
    ~AbortRemover() {
        if (armed) comm.impl()->set_abort({});
    }
};

std::shared_ptr<EngineObject> create(const conclave_engine_config* config,
                                     const std::shared_ptr<RankComm>& ranks, const void* out) {
    const Comm& comm = ranks->comm;
    AbortRemover remover{comm};
    auto object = std::make_shared<EngineObject>();
    object->ranks = ranks;
    EngineOptions options;
    comm::together(*comm.impl(), [&] {
        expect(out, "engine");
        options = options_of(config);
        comm.impl()->set_abort(options.abort);
        comm.impl()->set_deadline(options.deadline_seconds);
        if (comm.rank() == 0) object->tokenizer = Tokenizer::open(options.model);
    });
    object->engine.emplace(options, comm);
    remover.armed = false;
    return object;
}

void step(EngineObject& o, conclave_step_info& info) {
    const bool leads = o.engine->rank() == 0;
    o.expect_well();
    if (leads && o.shut_down)
        throw Error(ErrorCode::kUsage, "the engine has shut down: it takes no more steps");
    collective(o, [&] {
        if (leads) {
            apply_cancels(o);
            take_outputs(o, o.engine->step());
        } else if (!o.shut_down) {
            o.shut_down = !o.engine->follow_step();
        }
    });
    info.sequences = o.shut_down ? 0 : static_cast<int64_t>(o.engine->stats().step_sequences);
    info.shut_down = o.shut_down;
    for (const auto& [_, s] : o.sequences) info.unfinished += !s->done();
}

}  // namespace
}  // namespace conclave::c_api

using namespace conclave;
using namespace conclave::c_api;

const char* conclave_version(void) { return conclave::version(); }

conclave_status conclave_engine_create(const conclave_engine_config* config,
                                       const conclave_comm* comm, conclave_engine** engine) {
    return guarded([&] {
        const auto ranks =
            comm ? object_of<RankComm>(comm) : std::make_shared<RankComm>(Comm::self());
        const Call call(*ranks);
        *engine = open_handle(create(config, ranks, engine));
    });
}

conclave_status conclave_engine_destroy(conclave_engine* engine) {
    return on_engine(engine, [&](EngineObject& o) {
        if (o.engine->rank() == 0 && !o.shut_down && !o.failed) {
            try {
                o.engine->shutdown();
            } catch (const Error&) {
                // The others are gone, or end with an error of their own.
            }
        }
        o.engine.reset();
        close_handle<EngineObject>(engine);
    });
}

conclave_status conclave_engine_get_info(const conclave_engine* engine,
                                         conclave_engine_info* info) {
    return on_engine(engine, [&](const EngineObject& o) {
        expect_struct(info, "info", "conclave_engine_info");
        const Engine& e = *o.engine;
        const ModelSummary& model = e.model();
        conclave_engine_info i = {};
        i.struct_size = sizeof i;
        i.rank = e.rank();
        i.size = e.size();
        i.vocab_size = e.vocab_size();
        i.hidden_size = model.hidden_size;
        i.layers = model.layers;
        i.experts = model.experts;
        i.experts_per_token = model.experts_per_token;
        i.max_model_len = e.max_model_len();
        i.has_tokenizer = model.tokenizer;
        i.threads = e.load_report().threads;
        *info = i;
    });
}

conclave_status conclave_engine_get_stats(const conclave_engine* engine,
                                          conclave_engine_stats* stats) {
    return on_engine(engine, [&](const EngineObject& o) {
        expect_struct(stats, "stats", "conclave_engine_stats");
        const EngineStats s = o.engine->stats();
        conclave_engine_stats out = {};
        out.struct_size = sizeof out;
        out.resident_weight_bytes = s.resident_weight_bytes;
        out.kv_bytes = s.kv_bytes;
        out.load_bytes_requested = s.load_bytes_requested;
        out.load_bytes_needed = s.load_bytes_needed;
        out.load_stripe_bytes = s.load_stripe_bytes;
        out.offset_tables = s.offset_tables;
        out.communication_bytes = s.communication_bytes;
        out.communication_nanoseconds = s.communication_nanoseconds;
        out.weight_bytes_read = s.weight_bytes_read;
        out.steps = s.steps;
        out.prompt_tokens = s.prompt_tokens;
        out.generated_tokens = s.generated_tokens;
        out.prefill_seconds = s.prefill_seconds;
        out.decode_seconds = s.decode_seconds;
        *stats = out;
    });
}

conclave_status conclave_engine_describe(const conclave_engine* engine, char** text) {
    return on_engine(engine, [&](const EngineObject& o) {
        expect(text, "text");
        *text = new_text(o.engine->description());
    });
}

conclave_status conclave_engine_step(conclave_engine* engine, conclave_step_info* info) {
    return on_engine(engine, [&](EngineObject& o) {
        if (info) expect_struct(info, "info", "conclave_step_info");
        conclave_step_info done = {};
        done.struct_size = sizeof done;
        step(o, done);
        if (info) *info = done;
    });
}

conclave_status conclave_engine_follow(conclave_engine* engine) {
    return on_engine(engine, [&](EngineObject& o) {
        if (o.engine->rank() == 0) throw Error(ErrorCode::kUsage, "rank 0 leads: it cannot follow");
        collective(o, [&] {
            o.engine->follow();
            o.shut_down = true;
        });
    });
}

conclave_status conclave_engine_shutdown(conclave_engine* engine) {
    return on_engine(engine, [&](EngineObject& o) {
        o.expect_rank_zero("shuts down");
        collective(o, [&] {
            o.engine->shutdown();
            o.shut_down = true;
        });
    });
}
