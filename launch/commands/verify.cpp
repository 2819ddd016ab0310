#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "launch/commands/commands.h"
#include "launch/commands/reference.h"
#include "launch/compare.h"
#include "launch/console.h"
#include "launch/engine_options.h"
#include "launch/session.h"

namespace conclave::launch {
namespace {

struct Outcome {
    std::vector<float> logits;  // [B,T,V]
    std::vector<int32_t> greedy_ids;
};

void check_vocabulary(const Reference& reference, const std::string& file, int64_t vocab) {
    if (reference.vocab != vocab)
        throw Error(ErrorCode::kBadContent, "the reference is for another vocabulary")
            .file(file)
            .tensor("logits")
            .expected(std::to_string(vocab) + " logits for each position")
            .found(std::to_string(reference.vocab));
    for (const auto* ids : {&reference.input_ids, &reference.greedy_prompt})
        for (const int32_t id : *ids)
            if (id >= vocab)
                throw Error(ErrorCode::kBadContent, "the reference has an impossible token id")
                    .file(file)
                    .expected("below " + std::to_string(vocab))
                    .found(std::to_string(id));
}

/// Runs all sequences of the reference together, so that steps mix prompts and decoding.
Outcome measure(Engine& engine, const Reference& reference, const std::string& file) {
    Lead lead(engine);
    check_vocabulary(reference, file, engine.vocab_size());
    Outcome outcome;
    // A position that is never reported stays NaN and fails.
    outcome.logits.assign(reference.logits.size(), std::numeric_limits<float>::quiet_NaN());
    for (int64_t b = 0; b < reference.batch; ++b) {
        SequenceRequest request;
        const auto row = reference.input_ids.begin() + b * reference.length;
        request.prompt.assign(row, row + reference.length);
        request.max_tokens = 0;
        request.prompt_logits = [&, b](int64_t position, std::span<const float> logits) {
            const size_t at = static_cast<size_t>(b * reference.length + position) *
                              static_cast<size_t>(reference.vocab);
            std::copy(logits.begin(), logits.end(), outcome.logits.begin() + at);
        };
        engine.add(std::move(request));
    }
    SequenceId greedy = 0;
    if (!reference.greedy_ids.empty()) {
        SequenceRequest request;
        request.prompt = reference.greedy_prompt;
        request.max_tokens = static_cast<int64_t>(reference.greedy_ids.size());
        request.ignore_eos = true;
        greedy = engine.add(std::move(request));
    }
    while (engine.has_work())
        for (const TokenOutput& t : lead.step())
            if (t.sequence == greedy && t.token >= 0) outcome.greedy_ids.push_back(t.token);
    lead.finish();
    return outcome;
}

struct Verdict {
    LogitFigures logits;
    GreedyFigures greedy;
    std::string sha256;
    double tolerance = 0;
    bool with_greedy = false;

    bool logits_pass() const { return within(logits, tolerance); }
    bool pass() const { return logits_pass() && greedy.pass; }
};

void print_json(const Verdict& v) {
    nlohmann::ordered_json json;
    json["pass"] = v.pass();
    json["max_rel"] = v.logits.max_rel;
    json["rms_rel"] = v.logits.rms_rel;
    json["kl_mean"] = v.logits.kl_mean;
    json["kl_max"] = v.logits.kl_max;
    json["top1"] = v.logits.top1;
    json["greedy_first_diff"] = nullptr;
    json["greedy_margin"] = nullptr;
    if (v.greedy.first_diff) json["greedy_first_diff"] = *v.greedy.first_diff;
    if (v.greedy.margin) json["greedy_margin"] = *v.greedy.margin;
    json["logits_sha256"] = v.sha256;
    print(json.dump() + "\n");
}

std::string greedy_text(const Verdict& v, size_t steps) {
    if (!v.with_greedy) return "not in the reference";
    if (!v.greedy.first_diff) return fmt::format("all {} tokens agree", steps);
    std::string text = fmt::format("differs at step {}", *v.greedy.first_diff);
    if (v.greedy.margin) text += fmt::format(", where the margin is {:.2e}", *v.greedy.margin);
    return text + (v.greedy.pass ? " (a margin below 0.01 came first: allowed)" : "");
}

void print_text(const Verdict& v, const Reference& r) {
    const LogitFigures& f = v.logits;
    std::string out =
        fmt::format("{} sequences of {} tokens, {} logits each\n", r.batch, r.length, r.vocab);
    out += fmt::format("max difference   {:.3e} of the standard deviation (tolerance {:g})\n",
                       f.max_rel, v.tolerance);
    out += fmt::format("RMS difference   {:.3e}\n", f.rms_rel);
    out += fmt::format("KL divergence    mean {:.3e}, max {:.3e}\n", f.kl_mean, f.kl_max);
    out += fmt::format("top-1 agreement  {:.2f} %\n", 100 * f.top1);
    out += fmt::format("greedy           {}\n", greedy_text(v, r.greedy_ids.size()));
    out += fmt::format("logits SHA-256   {}\n", v.sha256);
    out += v.pass() ? "pass\n" : "FAIL\n";
    print(out);
}

/// Room for all sequences at once, whatever (power of two up to 256) the engine's KV blocks hold.
int64_t room_for_all(const Reference& reference) {
    constexpr int64_t kBlock = 256;
    const auto blocks = [](int64_t tokens) { return (tokens + kBlock - 1) / kBlock * kBlock; };
    const auto greedy = reference.greedy_prompt.size() + reference.greedy_ids.size();
    return reference.batch * blocks(reference.length) + blocks(static_cast<int64_t>(greedy));
}

}  // namespace

int verify(const Invocation& invocation, const Comm& comm) {
    Console console(invocation.verbose);
    EngineOptions options = engine_options(invocation, comm, console);
    // References are computed without a cache: its rounding alone can tip a router.
    if (options.kv_cache_dtype == "auto") options.kv_cache_dtype = "f32";
    Reference reference;
    together(comm, [&] {
        reference = read_reference(invocation.reference, comm.rank() == 0);
        if (options.max_model_len == 0) options.max_model_len = reference.longest();
        options.kv_cache_tokens = std::max(options.max_model_len, room_for_all(reference));
    });
    Engine engine(options, comm);
    if (engine.rank() != 0) {
        engine.follow();
        return 0;
    }
    console.line(loaded_line(engine.load_report()));
    console.line(engine.description());
    const Outcome outcome = measure(engine, reference, invocation.reference);
    Verdict verdict;
    verdict.tolerance = invocation.tolerance;
    verdict.logits = compare_logits(reference.logits, outcome.logits, reference.vocab);
    verdict.sha256 = sha256(outcome.logits);
    verdict.with_greedy = !reference.greedy_ids.empty();
    verdict.greedy =
        compare_greedy(reference.greedy_ids, outcome.greedy_ids, reference.greedy_margin);
    invocation.json ? print_json(verdict) : print_text(verdict, reference);
    return verdict.pass() ? 0 : 1;
}

}  // namespace conclave::launch
