#include "runtime/api/c/config.h"

#include <algorithm>
#include <cmath>

#include "runtime/api/c/callbacks.h"

namespace conclave::c_api {
namespace {

/// More are refused by the text stream; so many are read to let it say so.
constexpr size_t kMostStops = 17;

void set(std::string& option, const char* value) {
    if (value) option = value;
}

void expect_at_most(size_t count, size_t most, const char* name) {
    if (count > most)
        throw Error(ErrorCode::kUsage, std::string("too many entries in ") + name)
            .expected("at most " + std::to_string(most))
            .found(std::to_string(count));
}

conclave_log_level level_of(LogLevel level) {
    switch (level) {
        case LogLevel::kDebug:
            return CONCLAVE_LOG_DEBUG;
        case LogLevel::kInfo:
            return CONCLAVE_LOG_INFO;
        case LogLevel::kWarning:
            return CONCLAVE_LOG_WARNING;
        case LogLevel::kError:
            return CONCLAVE_LOG_ERROR;
    }
    return CONCLAVE_LOG_ERROR;
}

void set_callbacks(EngineOptions& o, const conclave_engine_config& c) {
    if (c.log)
        o.log = [log = c.log, user = c.log_user](LogLevel level, std::string_view message) {
            const std::string text(message);
            expect_host("log", [&] {
                log(user, level_of(level), text.c_str());
                return 0;
            });
        };
    if (c.progress)
        o.progress = [progress = c.progress, user = c.progress_user](const LoadProgress& p) {
            expect_host("progress", [&] { return progress(user, p.bytes, p.total, p.seconds); });
        };
    if (c.abort)
        o.abort = [wants_stop = c.abort, user = c.abort_user] {
            return call_host("abort", [&] { return wants_stop(user); }) != 0;
        };
}

}  // namespace

EngineOptions options_of(const conclave_engine_config* config) {
    expect_struct(config, "config", "conclave_engine_config");
    expect(config->model, "config->model");
    EngineOptions o;
    o.model = config->model;
    set(o.load_format, config->load_format);
    set(o.dummy_dtype, config->dummy_dtype);
    set(o.activations, config->activations);
    set(o.expert_parallel, config->expert_parallel);
    set(o.quantization, config->quantization);
    set(o.kv_cache_dtype, config->kv_cache_dtype);
    o.deterministic = config->deterministic != 0;
    o.threads = config->threads;
    o.max_model_len = config->max_model_len;
    o.max_num_seqs = config->max_num_seqs;
    o.max_num_batched_tokens = config->max_num_batched_tokens;
    o.kv_cache_tokens = config->kv_cache_tokens;
    if (std::isnan(config->deadline_seconds))
        throw Error(ErrorCode::kUsage, "config->deadline_seconds is not a number");
    // In nanoseconds it must fit 64 bits: 30 years are as good as any more.
    o.deadline_seconds = std::clamp(config->deadline_seconds, 0.0, 1e9);
    if (config->plugins)
        o.extensions = object_of<PluginsObject>(config->plugins)->plugins.extensions;
    set_callbacks(o, *config);
    return o;
}

SequenceOrder order_of(const conclave_sequence_config* config, int64_t max_model_len,
                       int64_t vocab_size) {
    expect_struct(config, "config", "conclave_sequence_config");
    const conclave_sequence_config& c = *config;
    expect_array(c.prompt, c.prompt_tokens, "config->prompt");
    expect_array(c.logit_bias, c.logit_bias_count, "config->logit_bias");
    expect_array(c.stop, c.stop_count, "config->stop");
    expect_at_most(c.prompt_tokens, static_cast<size_t>(max_model_len), "config->prompt");
    expect_at_most(c.logit_bias_count, static_cast<size_t>(vocab_size), "config->logit_bias");
    if ((c.prompt != nullptr) == (c.text != nullptr))
        throw Error(ErrorCode::kUsage, c.prompt
                                           ? "both config->prompt and config->text are given"
                                           : "neither config->prompt nor config->text is given");
    SequenceOrder order;
    SequenceRequest& r = order.request;
    if (c.text)
        order.text = text_of(c.text, c.text_bytes, "config->text");
    else
        r.prompt.assign(c.prompt, c.prompt + c.prompt_tokens);
    r.max_tokens = c.max_tokens;
    r.ignore_eos = c.ignore_eos != 0;
    r.sampling.temperature = c.temperature;
    r.sampling.top_k = c.top_k;
    r.sampling.top_p = c.top_p;
    r.sampling.min_p = c.min_p;
    r.sampling.seed = c.seed;
    r.sampling.repetition_penalty = c.repetition_penalty;
    r.sampling.frequency_penalty = c.frequency_penalty;
    r.sampling.presence_penalty = c.presence_penalty;
    for (size_t i = 0; i < c.logit_bias_count; ++i)
        r.sampling.logit_bias.emplace_back(c.logit_bias[i].token, c.logit_bias[i].bias);
    for (size_t i = 0; i < std::min(c.stop_count, kMostStops); ++i) {
        expect(c.stop[i], "an entry of config->stop");
        order.stop.emplace_back(c.stop[i]);
    }
    order.keep_logits = c.keep_logits != 0;
    order.on_token = c.on_token;
    order.token_user = c.token_user;
    order.on_prompt_logits = c.on_prompt_logits;
    order.prompt_logits_user = c.prompt_logits_user;
    order.on_output_logits = c.on_output_logits;
    order.output_logits_user = c.output_logits_user;
    return order;
}

std::string text_of(const char* text, size_t bytes, const char* name) {
    if (bytes == SIZE_MAX) {
        expect(text, name);
        return text;
    }
    expect_array(text, bytes, name);
    return std::string(bytes > 0 ? text : "", bytes);
}

}  // namespace conclave::c_api

using namespace conclave;
using namespace conclave::c_api;

conclave_status conclave_engine_config_init(conclave_engine_config* config, size_t struct_size) {
    return guarded([&] {
        expect(config, "config");
        expect_struct_size(struct_size, sizeof *config, "conclave_engine_config");
        const EngineOptions defaults;
        conclave_engine_config c = {};
        c.struct_size = struct_size;
        c.max_num_seqs = defaults.max_num_seqs;
        c.max_num_batched_tokens = defaults.max_num_batched_tokens;
        c.deadline_seconds = defaults.deadline_seconds;
        *config = c;
    });
}

conclave_status conclave_sequence_config_init(conclave_sequence_config* config,
                                              size_t struct_size) {
    return guarded([&] {
        expect(config, "config");
        expect_struct_size(struct_size, sizeof *config, "conclave_sequence_config");
        const SequenceRequest defaults;
        conclave_sequence_config c = {};
        c.struct_size = struct_size;
        c.text_bytes = SIZE_MAX;
        c.max_tokens = defaults.max_tokens;
        c.top_p = defaults.sampling.top_p;
        c.repetition_penalty = defaults.sampling.repetition_penalty;
        *config = c;
    });
}

conclave_status conclave_inspect(const conclave_engine_config* config, char** json) {
    return guarded([&] {
        expect(json, "json");
        *json = new_text(to_json(inspect(options_of(config))));
    });
}

conclave_status conclave_plan(const conclave_engine_config* config, int32_t ranks, char** json) {
    return guarded([&] {
        expect(json, "json");
        *json = new_text(to_json(plan(options_of(config), ranks)));
    });
}
