#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/engine_options.h"
#include "launch/perplexity.h"
#include "launch/session.h"
#include "launch/text_file.h"

namespace conclave::launch {
namespace {

/// The tokens of the file that are needed, and not one more.
std::vector<int32_t> text_ids(const Invocation& invocation) {
    const auto tokenizer = Tokenizer::open(invocation.engine.model);
    if (!tokenizer)
        throw Error(ErrorCode::kUsage, "the model has no tokenizer.json, so it cannot read a text")
            .file(invocation.engine.model);
    const std::string text = read_text(invocation.text_file, "the text");
    std::vector<int32_t> ids = tokenizer->encode(text, false);
    const Windows& w = invocation.windows;
    const auto tokens = static_cast<int64_t>(ids.size());
    if (tokens < w.tokens_needed())
        throw Error(ErrorCode::kUsage,
                    fmt::format("the text is too short for --windows {} (at most {})", w.count,
                                w.that_fit(tokens)))
            .file(invocation.text_file)
            .expected(fmt::format("at least {} tokens", w.tokens_needed()))
            .found(fmt::format("{} tokens", tokens));
    ids.resize(static_cast<size_t>(w.tokens_needed()));
    return ids;
}

void check_window(const Windows& windows, int64_t room, const char* what) {
    if (windows.window > room)
        throw Error(ErrorCode::kUsage, fmt::format("--window is more than {}", what))
            .expected(fmt::format("at most {} tokens", room))
            .found(fmt::format("{} tokens", windows.window));
}

/// Room for as many windows as one step can have a part of.
int64_t cache_tokens(const Windows& windows, const EngineOptions& options) {
    constexpr int64_t kBlock = 256;  // a multiple of whatever the engine's KV blocks hold
    const int64_t at_once = std::min(
        {windows.count, options.max_num_seqs, options.max_num_batched_tokens / windows.window + 2});
    return at_once * ((windows.window + kBlock - 1) / kBlock * kBlock);
}

struct Scores {
    std::vector<double> nll;  ///< of every position of every window
    double seconds = 0;
};

Scores measure(Engine& engine, const Windows& windows, const std::vector<int32_t>& ids,
               Console& console) {
    Lead lead(engine);
    const int64_t vocab = engine.vocab_size();
    for (const int32_t id : ids)
        if (id >= vocab)
            throw Error(ErrorCode::kBadContent, "the tokenizer gives ids that the model lacks")
                .expected("below " + std::to_string(vocab))
                .found(std::to_string(id));
    Scores scores;
    scores.nll.assign(static_cast<size_t>(windows.tokens_scored()),
                      std::numeric_limits<double>::quiet_NaN());
    int64_t done = 0;
    for (int64_t w = 0; w < windows.count; ++w) {
        SequenceRequest request;
        const int64_t begin = windows.begin(w);
        request.prompt.assign(ids.begin() + begin, ids.begin() + begin + windows.window);
        request.max_tokens = 0;
        request.prompt_logits = [&, w, begin](int64_t position, std::span<const float> logits) {
            const double nll = negative_log_likelihood(logits, ids[begin + position + 1]);
            if (std::isnan(nll))
                throw Error(ErrorCode::kBadContent, "the model's logits are not numbers");
            scores.nll[static_cast<size_t>(w * windows.window + position)] = nll;
            ++done;
        };
        engine.add(std::move(request));
    }
    const auto start = std::chrono::steady_clock::now();
    while (engine.has_work()) {
        lead.step();
        const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
        scores.seconds = spent.count();
        const int64_t total = windows.tokens_scored();
        console.progress(progress_of_tokens("scoring", done, total, scores.seconds), done == total);
    }
    lead.finish();
    return scores;
}

void print_json(const PerplexityFigures& f, const Windows& w, double seconds) {
    nlohmann::ordered_json json;
    json["perplexity"] = f.perplexity;
    json["standard_error"] = f.standard_error;
    json["mean_nll"] = f.mean_nll;
    json["tokens"] = w.tokens_scored();
    json["window"] = w.window;
    json["windows"] = w.count;
    json["stride"] = w.begin(1);
    json["seconds"] = seconds;
    json["tokens_per_second"] = static_cast<double>(w.tokens_scored()) / seconds;
    print(json.dump() + "\n");
}

void print_text(const PerplexityFigures& f, const Windows& w, double seconds) {
    std::string out = fmt::format("perplexity  {:.4f}", f.perplexity);
    if (std::isfinite(f.standard_error)) out += fmt::format(" +/- {:.4f}", f.standard_error);
    out += fmt::format("\nscored      {} tokens: {} windows of {}, stride {}\n", w.tokens_scored(),
                       w.count, w.window, w.begin(1));
    out += fmt::format("speed       {:.1f} tokens/s\n",
                       static_cast<double>(w.tokens_scored()) / seconds);
    print(out);
}

}  // namespace

int perplexity(const Invocation& invocation, const Comm& comm) {
    Console console(invocation.verbose);
    EngineOptions options = engine_options(invocation, comm, console);
    const Windows& windows = invocation.windows;
    std::vector<int32_t> ids;  // rank 0
    together(comm, [&] {
        check_window(windows, model_limit(options), "the model allows");
        if (options.max_model_len == 0) options.max_model_len = windows.window;
        check_window(windows, options.max_model_len, "-c allows");
        options.kv_cache_tokens = std::max(options.max_model_len, cache_tokens(windows, options));
        if (comm.rank() == 0) ids = text_ids(invocation);
    });
    Engine engine(options, comm);
    if (engine.rank() != 0) {
        engine.follow();
        return 0;
    }
    console.line(loaded_line(engine.load_report()));
    console.line(engine.description());
    const Scores scores = measure(engine, windows, ids, console);
    const PerplexityFigures figures = perplexity_of(scores.nll);
    if (invocation.json)
        print_json(figures, windows, scores.seconds);
    else
        print_text(figures, windows, scores.seconds);
    return 0;
}

}  // namespace conclave::launch
