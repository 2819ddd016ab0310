#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/engine_options.h"
#include "launch/session.h"
#include "launch/text_file.h"

namespace conclave::launch {
namespace {

std::string read_prompt(const std::string& path) {
    std::string text = read_text(path, "the prompt");
    if (!text.empty() && text.back() == '\n') text.pop_back();
    if (!text.empty() && text.back() == '\r') text.pop_back();
    return text;
}

std::vector<int32_t> prompt_ids(const Invocation& invocation,
                                const std::optional<Tokenizer>& tokenizer) {
    const RunOptions& run = invocation.run;
    std::vector<int32_t> ids = run.prompt_ids;
    if (!run.from_ids) {
        const std::string text = run.from_file ? read_prompt(run.file) : run.prompt;
        if (!tokenizer)
            throw Error(ErrorCode::kUsage,
                        "the model has no tokenizer.json, so it takes --prompt-ids 1,2,3 only")
                .file(invocation.engine.model);
        ids = tokenizer->encode(text);
    }
    if (ids.empty()) throw Error(ErrorCode::kUsage, "the prompt is empty: give at least one token");
    return ids;
}

/// Before loading, as everything that can be.
void check_stop(const Invocation& invocation, const std::optional<Tokenizer>& tokenizer) {
    if (invocation.run.stop.empty()) return;
    if (!tokenizer)
        throw Error(ErrorCode::kUsage, "--stop is a text, and the model has no tokenizer.json")
            .file(invocation.engine.model);
    try {
        tokenizer->stream(true, invocation.run.stop);
    } catch (const Error& e) {
        throw Error(e.code(), std::string("--stop: ") + e.what());
    }
}

/// The sequence's room: what was asked for with -c, else what prompt and -n need within what the
/// model allows. Known before loading, so that a prompt that cannot run costs no load.
int64_t sequence_room(const Invocation& invocation, int64_t limit, int64_t prompt) {
    int64_t room = invocation.engine.max_model_len;
    if (room == 0) room = std::min(prompt + invocation.run.max_tokens, limit);
    if (prompt >= room)
        throw Error(ErrorCode::kUsage, "the prompt is too long")
            .expected(fmt::format("at most {} tokens, so that one can be added", room - 1))
            .found(fmt::format("{} tokens", prompt));
    return room;
}

/// The generated tokens as they go to standard output.
class Output {
  public:
    Output(const std::optional<Tokenizer>& tokenizer, const std::vector<std::string>& stop) {
        if (tokenizer) stream_.emplace(tokenizer->stream(true, stop));
    }

    void add(int32_t id) {
        if (stream_) return write(stream_->add(id));
        write((first_ ? "" : " ") + std::to_string(id));
        first_ = false;
    }
    bool stopped() const { return stream_ && stream_->stopped(); }
    void finish() { print((stream_ ? stream_->finish() : std::string()) + "\n"); }

  private:
    static void write(const std::string& text) {
        if (!text.empty()) print(text);
    }

    std::optional<TextStream> stream_;
    bool first_ = true;
};

std::string rate_line(const char* what, uint64_t tokens, double seconds) {
    std::string line = fmt::format("{} {} tokens in {:.3f} s", what, tokens, seconds);
    if (tokens > 0 && seconds > 0) line += fmt::format(" ({:.1f} tokens/s)", tokens / seconds);
    return line;
}

void report(Console& console, const EngineStats& stats) {
    console.line(rate_line("prefill", stats.prompt_tokens, stats.prefill_seconds));
    // The first token comes from the prompt's last step.
    const uint64_t decoded = std::max<uint64_t>(stats.generated_tokens, 1) - 1;
    console.line(rate_line("decode ", decoded, stats.decode_seconds));
}

void generate(Engine& engine, const Invocation& invocation, std::vector<int32_t> ids,
              const std::optional<Tokenizer>& tokenizer, Console& console) {
    Lead lead(engine);
    const auto prompt = static_cast<int64_t>(ids.size());
    SequenceRequest request;
    request.prompt = std::move(ids);
    request.max_tokens = std::min(invocation.run.max_tokens, engine.max_model_len() - prompt);
    request.sampling = invocation.run.sampling;
    request.ignore_eos = invocation.run.ignore_eos;
    const int64_t wanted = invocation.run.max_tokens, allowed = request.max_tokens;
    const SequenceId id = engine.add(std::move(request));
    if (allowed < wanted)
        console.line(
            fmt::format("conclave: generating at most {} tokens of the {} asked for: the "
                        "sequence is limited to {}",
                        allowed, wanted, engine.max_model_len()));
    Output output(tokenizer, invocation.run.stop);
    while (engine.has_work())
        for (const TokenOutput& t : lead.step()) {
            if (t.token >= 0) output.add(t.token);
            if (output.stopped()) engine.cancel(id);
        }
    output.finish();
    lead.finish();
}

}  // namespace

int run(const Invocation& invocation, const Comm& comm) {
    Console console(invocation.verbose);
    EngineOptions options = engine_options(invocation, comm, console);
    std::optional<Tokenizer> tokenizer;
    std::vector<int32_t> ids;
    together(comm, [&] {
        const int64_t limit = model_limit(options);  // first: says whether there is a model
        tokenizer = Tokenizer::open(options.model);
        check_stop(invocation, tokenizer);
        ids = prompt_ids(invocation, tokenizer);
        options.max_model_len = sequence_room(invocation, limit, static_cast<int64_t>(ids.size()));
    });
    Engine engine(options, comm);
    if (engine.rank() != 0) {
        engine.follow();
        return 0;
    }
    console.line(loaded_line(engine.load_report()));
    console.line(engine.description());
    generate(engine, invocation, std::move(ids), tokenizer, console);
    report(console, engine.stats());
    return 0;
}

}  // namespace conclave::launch
