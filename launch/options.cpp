#include "launch/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "launch/bench_options.h"
#include "launch/conform_options.h"
#include "launch/help.h"
#include "launch/plan_options.h"
#include "launch/validators.h"

namespace conclave::launch {
namespace {

/// "2x4"
bool is_grid(const std::string& text) {
    const auto is_size = [](const std::string& s) {
        return !s.empty() && s.size() <= 6 && s[0] != '0' &&
               s.find_first_not_of("0123456789") == std::string::npos;
    };
    const size_t x = text.find('x');
    return x != std::string::npos && is_size(text.substr(0, x)) && is_size(text.substr(x + 1));
}

CLI::Validator expert_layout() {
    return CLI::Validator(
        [](std::string& value) -> std::string {
            if (value == "auto" || value == "tp" || value == "ep" || is_grid(value)) return {};
            return "must be auto, tp, ep or TPxEP such as 2x4, not " + value;
        },
        "");
}

void add_model(CLI::App& app, Invocation& to) {
    app.add_option("MODEL,-m,--model", to.engine.model,
                   "Directory of the checkpoint, or a .gguf or .safetensors file")
        ->envname("CONCLAVE_MODEL")
        ->type_name("");
}

void add_engine(CLI::App& app, EngineOptions& to) {
    const char* const group = "Engine";
    app.add_option("--activations", to.activations,
                   "Arithmetic of matrix inputs: auto (int8 for integer weights, bf16 for bf16 "
                   "weights, else f32), f32, bf16, int8")
        ->envname("CONCLAVE_ACTIVATIONS")
        ->check(one_of({"auto", "f32", "bf16", "int8"}))
        ->type_name("TYPE")
        ->group(group)
        ->default_str("auto");
    app.add_option(
           "--load-format", to.load_format,
           "auto (what the files are), safetensors, gguf, a plugin's reader, or dummy: random "
           "weights of config.json's shape, so that sizes can be measured without files")
        ->envname("CONCLAVE_LOAD_FORMAT")
        ->type_name("FORMAT")
        ->group(group)
        ->default_str("auto");
    app.add_option(
           "--dummy-dtype", to.dummy_dtype,
           "Type of dummy weights: bf16, f16, f32, int2 .. int8 with a group size or without "
           "(int4-g32), w8a8, fp8, mxfp8, mxfp4, nvfp4 (embeddings, head and routers stay "
           "bf16)")
        ->envname("CONCLAVE_DUMMY_DTYPE")
        ->type_name("TYPE")
        ->group(group)
        ->default_str("bf16");
    app.add_flag("--deterministic", to.deterministic,
                 "The same numbers at any number of ranks and threads; costs some speed")
        ->envname("CONCLAVE_DETERMINISTIC")
        ->group(group);
    app.add_option(
           "--expert-parallel", to.expert_parallel,
           "How ranks share experts: tp (each a slice of every expert), ep (each some whole "
           "experts), TPxEP such as 2x4 (their product is the number of ranks), auto")
        ->envname("CONCLAVE_EXPERT_PARALLEL")
        ->check(expert_layout())
        ->type_name("LAYOUT")
        ->group(group)
        ->default_str("auto");
    app.add_option("--tensor-parallel-size", to.tensor_parallel_size,
                   "Ranks that share one copy of the model; so far only all of them. Also -tp")
        ->envname("CONCLAVE_TENSOR_PARALLEL_SIZE")
        ->check(at_least(1, 1 << 20))
        ->type_name("N")
        ->group(group)
        ->default_str("all ranks");
    app.add_option("--quantization", to.quantization,
                   "Insist on this format; an error where the checkpoint is in another")
        ->envname("CONCLAVE_QUANTIZATION")
        ->type_name("NAME")
        ->group(group)
        ->default_str("what the checkpoint says");
    app.add_option(
           "--kv-cache-dtype", to.kv_cache_dtype,
           "Numbers of the KV cache: auto (f32 with f32 activations and in verify, else bf16), "
           "f32, f16, bf16")
        ->envname("CONCLAVE_KV_CACHE_DTYPE")
        ->check(one_of({"auto", "f32", "f16", "bf16"}))
        ->type_name("TYPE")
        ->group(group)
        ->default_str("auto");
}

void add_threads(CLI::App& app, int& to) {
    app.add_option("-t,--threads", to, "Threads of each rank")
        ->envname("CONCLAVE_THREADS")
        ->check(at_least(1, 4096))
        ->type_name("N")
        ->group("Engine")
        ->default_str(kThreadsDefault);
}

void add_limits(CLI::App& app, EngineOptions& to, const char* context_default) {
    const char* const group = "Limits";
    app.add_option("-c,--ctx-size,--max-model-len", to.max_model_len,
                   "Tokens of one sequence, prompt included")
        ->envname("CONCLAVE_MAX_MODEL_LEN")
        ->check(at_least(1, 1 << 30))
        ->type_name("N")
        ->group(group)
        ->default_str(context_default);
    app.add_option("--max-num-seqs", to.max_num_seqs, "Sequences in one step")
        ->envname("CONCLAVE_MAX_NUM_SEQS")
        ->check(at_least(1, 1 << 16))
        ->type_name("N")
        ->group(group)
        ->capture_default_str();
    app.add_option("-b,--max-num-batched-tokens,--batch-size", to.max_num_batched_tokens,
                   "Tokens in one step; longer prompts go in chunks")
        ->envname("CONCLAVE_MAX_NUM_BATCHED_TOKENS")
        ->check(at_least(1, 1 << 20))
        ->type_name("N")
        ->group(group)
        ->capture_default_str();
}

void add_ranks(CLI::App& app, Invocation& to) {
    app.add_option("--local-ranks", to.local_ranks,
                   "Run N ranks as threads of this process, without MPI: to try layouts")
        ->envname("CONCLAVE_LOCAL_RANKS")
        ->check(at_least(1, 1024))
        ->type_name("N")
        ->group("Engine");
    app.add_option(
           "--deadline", to.engine.deadline_seconds,
           "Seconds that ranks wait for one another before they give up and name the missing "
           "one; 0 waits for ever")
        ->envname("CONCLAVE_DEADLINE")
        ->check(in_range(0, 1e9, "a number of seconds, at least 0"))
        ->type_name("SECONDS")
        ->group("Engine")
        ->default_str("300");
}

void add_doctor(CLI::App& app, Invocation& to) {
    app.add_flag("--json", to.json, "Print one JSON object");
    add_threads(app, to.engine.threads);
    add_ranks(app, to);
    app.add_flag("-v,--verbose", to.verbose, "Say more on standard error, from all ranks")
        ->envname("CONCLAVE_VERBOSE");
}

void add_verify(CLI::App& app, Invocation& to) {
    app.add_option("--reference", to.reference, "The .safetensors file to compare with")
        ->type_name("FILE");
    app.add_option("--tolerance", to.tolerance,
                   "Largest difference, in standard deviations of the reference")
        ->check(in_range(0, 1e300, "a number, at least 0"))
        ->type_name("X")
        ->default_str("1e-4");
}

void add_perplexity(CLI::App& app, Invocation& to) {
    app.add_option("FILE,-f,--file", to.text_file, "The text to score, UTF-8")->type_name("");
    const auto add = [&](const char* name, int64_t& value, const char* what) {
        return app.add_option(name, value, what)->check(at_least(1, 1 << 30))->type_name("N");
    };
    add("--window", to.windows.window, "Tokens fed together")->capture_default_str();
    add("--windows", to.windows.count, "How many windows")->capture_default_str();
    add("--stride", to.windows.stride, "From the begin of a window to that of the next, in tokens")
        ->default_str("--window");
}

void add_dequantize(CLI::App& app, DequantizeOptions& to) {
    app.add_option("-o,--out", to.directory, "Folder to write; made, or empty")->type_name("DIR");
    app.add_option("--dtype", to.dtype, "Type of the tensors written: f32, bf16")
        ->check(one_of({"f32", "bf16"}))
        ->type_name("TYPE")
        ->capture_default_str();
    app.add_option("--max-shard-size", to.max_file_bytes, "Bytes of one file, such as 5GB")
        ->transform(CLI::AsSizeValue(false))
        ->type_name("SIZE")
        ->default_str("5GB");
}

/// An option that may be given again and again, each time with one text, taken as it is.
void add_texts(CLI::App& app, const char* name, std::vector<std::string>& to, const char* what,
               const char* type, const char* group) {
    const auto take = [&to](const CLI::results_t& texts) {
        to = texts;
        return true;
    };
    app.add_option(name, take, what)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->type_name(type)
        ->group(group);
}

struct RunText {
    std::string ids;
    CLI::Option *prompt = nullptr, *prompt_ids = nullptr, *file = nullptr, *temperature = nullptr;
    std::vector<std::string> biases;
    std::vector<CLI::Option*> filters;  ///< sampling options that need a temperature
};

void add_prompt(CLI::App& app, RunOptions& to, RunText& text) {
    const char* const group = "Generation";
    text.prompt = app.add_option("-p,--prompt", to.prompt, "Text to continue")->type_name("TEXT");
    text.prompt_ids = app.add_option("--prompt-ids", text.ids, "Token ids to continue, as 1,2,3")
                          ->type_name("IDS");
    text.file = app.add_option("-f,--file", to.file,
                               "Read the prompt from a file; one line break at its end is dropped")
                    ->type_name("FILE");
    for (CLI::Option* option : {text.prompt, text.prompt_ids, text.file}) option->group(group);
    app.add_option("-n,--max-tokens,--predict,--n-predict", to.max_tokens,
                   "Tokens to generate at most")
        ->check(at_least(1))
        ->type_name("N")
        ->group(group)
        ->capture_default_str();
    app.add_flag("--ignore-eos", to.ignore_eos, "Go on after the model's end-of-text token")
        ->group(group);
    add_texts(app, "--stop", to.stop,
              "End at this text, which is not printed; may be given up to 16 times", "TEXT", group);
}

void add_sampling(CLI::App& app, SamplingParams& to, RunText& text) {
    const char* const group = "Sampling";
    text.temperature =
        app.add_option("--temperature,--temp", to.temperature, "0 takes the most likely token")
            ->check(in_range(0, 1e6, "a number, at least 0"))
            ->type_name("X")
            ->group(group)
            ->default_str("0");
    text.filters = {
        app.add_option("--top-k", to.top_k, "Keep the k most likely tokens; 0 keeps all")
            ->check(at_least(0))
            ->type_name("K"),
        app.add_option("--top-p", to.top_p, "Keep the most likely tokens that make up P")
            ->check(in_range(1e-300, 1, "above 0 and at most 1"))
            ->type_name("P"),
        app.add_option("--min-p", to.min_p, "Keep tokens at least P times as likely as the best")
            ->check(in_range(0, 1, "between 0 and 1"))
            ->type_name("P"),
    };
    for (CLI::Option* option : text.filters) option->group(group)->capture_default_str();
    const auto penalty = [&](const char* name, double& value, double least, double most,
                             const std::string& wanted, const char* what) {
        app.add_option(name, value, what)
            ->check(in_range(least, most, wanted))
            ->type_name("X")
            ->group(group)
            ->capture_default_str();
    };
    penalty("--repetition-penalty,--repeat-penalty", to.repetition_penalty, 0.01, 100,
            "from 0.01 to 100",
            "Divide logits above 0 of tokens in prompt and text by X, multiply others; 1: none");
    penalty("--presence-penalty", to.presence_penalty, -2, 2, "from -2 to 2",
            "Subtract X from the logits of tokens that were generated");
    penalty("--frequency-penalty", to.frequency_penalty, -2, 2, "from -2 to 2",
            "Subtract X for each time the token was generated");
    add_texts(app, "--logit-bias", text.biases,
              "Add to the logit of a token id, as 15043+1 or 15043-1; may be given again", "ID+X",
              group);
    app.add_option("-s,--seed", to.seed, "Seed of the random choice")
        ->check(seed())
        ->type_name("N")
        ->group(group)
        ->capture_default_str();
}

void finish_run(Invocation& to, const RunText& text) {
    const auto given = text.prompt->count() + text.prompt_ids->count() + text.file->count();
    if (given != 1)
        throw Error(ErrorCode::kUsage,
                    std::string(given == 0 ? "no prompt" : "more than one prompt") +
                        ": give exactly one of --prompt TEXT, --prompt-ids 1,2,3 and --file FILE");
    to.run.from_ids = text.prompt_ids->count() > 0;
    to.run.from_file = text.file->count() > 0;
    if (to.run.from_ids) to.run.prompt_ids = parse_ids(text.ids);
    for (const std::string& bias : text.biases)
        to.run.sampling.logit_bias.push_back(parse_bias(bias));
    bool filtered = false;
    for (const CLI::Option* option : text.filters) filtered |= option->count() > 0;
    if (filtered && text.temperature->count() == 0) to.run.sampling.temperature = 1;
}

/// CLI11 knows short options of one letter only.
void spell_out_tp(std::vector<std::string>& arguments) {
    for (std::string& a : arguments) {
        if (a == "--") break;
        if (a == "-tp" || a.rfind("-tp=", 0) == 0) a.replace(0, 3, "--tensor-parallel-size");
    }
}

/// The program and its commands; what the chosen command is given lands in an Invocation.
class CommandLine {
  public:
    /// `chosen` is the command's name. Only that command gets options: all would share one target,
    /// and CLI11 applies environment variables to commands that were not named, too.
    CommandLine(const std::string& chosen, Invocation& to) : to_(to) {
        app.formatter(help_formatter("conclave COMMAND [options]"));
        app.footer(kHelpFooter);
        app.set_help_flag("-h,--help", "Print this help");
        app.set_version_flag("--version", version_text(), "Print the version");
        app.require_subcommand(1);
        for (const Entry& entry : kCommands) {
            CLI::App* command = app.add_subcommand(entry.name, entry.what);
            command->formatter(help_formatter("conclave " + std::string(entry.usage)));
            command->footer(entry.footer);
            command->set_help_flag("-h,--help", "Print this help");
            if (chosen != entry.name) continue;
            to.command = entry.command;
            if (entry.command != Command::kText) add_options(*command);
        }
    }

    /// CLI11 would say no more than that a subcommand is required.
    static void check_command(const std::vector<std::string>& arguments) {
        std::string names;
        for (const Entry& entry : kCommands) {
            if (!arguments.empty() && arguments.front() == entry.name) return;
            names += (names.empty() ? "" : ", ") + std::string(entry.name);
        }
        if (!arguments.empty() && arguments.front().rfind('-', 0) == 0) return;
        throw Error(
            ErrorCode::kUsage,
            (arguments.empty() ? "no command" : "there is no command " + arguments.front()) +
                ": give one of " + names + " (see conclave --help)");
    }

    void finish() {
        if (to_.command == Command::kText) {
            to_.text = version_text() + "\n";
            return;
        }
        if (to_.command == Command::kPlugins || to_.command == Command::kConform ||
            to_.command == Command::kDoctor)
            return;
        if (to_.engine.model.empty())
            throw Error(ErrorCode::kUsage,
                        "no model: give the checkpoint's directory, as in "
                        "conclave " +
                            app.get_subcommands().front()->get_name() + " MODEL");
        if (to_.command == Command::kRun) finish_run(to_, text_);
        if (to_.command == Command::kPlan) finish_plan(to_, plan_);
        if (to_.command == Command::kVerify && to_.reference.empty())
            throw Error(ErrorCode::kUsage, "no reference: give --reference FILE.safetensors");
        if (to_.command == Command::kDequantize && to_.dequantize.directory.empty())
            throw Error(ErrorCode::kUsage, "no folder to write to: give --out DIR");
        if (to_.command == Command::kPerplexity && to_.text_file.empty())
            throw Error(ErrorCode::kUsage,
                        "no text: give the file, as in conclave perplexity "
                        "MODEL FILE");
    }

    CLI::App app{"Conclave runs Mixture-of-Experts language models on CPUs, across MPI ranks.",
                 "conclave"};

  private:
    struct Entry {
        const char* name;
        Command command;
        const char *what, *usage, *footer;
    };
    static inline const Entry kCommands[] = {
        {"run", Command::kRun, "Generate text", "run MODEL --prompt TEXT [options]",
         kRunHelpFooter},
        {"inspect", Command::kInspect, "Say what a checkpoint holds", "inspect MODEL [options]",
         kInspectHelpFooter},
        {"plan", Command::kPlan, "Say what running a model on N ranks would take",
         "plan MODEL --ranks N [options]", kPlanHelpFooter},
        {"verify", Command::kVerify, "Compare a model's logits with a reference",
         "verify MODEL --reference FILE [options]", kVerifyHelpFooter},
        {"perplexity", Command::kPerplexity, "Say how well a model foretells a text",
         "perplexity MODEL FILE [options]", kPerplexityHelpFooter},
        {"bench", Command::kBench, "Measure how fast a model reads prompts and writes",
         "bench MODEL [options]", kBenchHelpFooter},
        {"dequantize", Command::kDequantize, "Write a model as a plain checkpoint",
         "dequantize MODEL --out DIR [options]", kDequantizeHelpFooter},
        {"plugins", Command::kPlugins, "List plugins: where they are, what they add",
         "plugins [--json]", kPluginsHelpFooter},
        {"conform", Command::kConform, "Check that a plugin keeps its promises",
         "conform --plugin FILE [options]", kConformHelpFooter},
        {"doctor", Command::kDoctor, "Measure ranks and the links between them; say what to change",
         "doctor [options]", kDoctorHelpFooter},
        {"version", Command::kText, "Print the version", "version", ""},
    };

    static std::string version_text() { return std::string("conclave ") + conclave::version(); }

    void add_options(CLI::App& command) {
        if (to_.command == Command::kConform) return add_conform(command, to_);
        if (to_.command == Command::kPlugins) {
            command.add_flag("--json", to_.json, "Print one JSON object");
            return;
        }
        if (to_.command == Command::kDoctor) return add_doctor(command, to_);
        add_model(command, to_);
        const char* context_default = "what the model allows";
        if (to_.command == Command::kBench) add_bench(command, to_.bench);
        if (to_.command == Command::kRun) {
            add_prompt(command, to_.run, text_);
            add_sampling(command, to_.run.sampling, text_);
            context_default = "what prompt and -n need";
        } else {
            if (to_.command == Command::kPlan) add_plan(command, to_, plan_);
            if (to_.command == Command::kDequantize) add_dequantize(command, to_.dequantize);
            if (to_.command == Command::kVerify) {
                add_verify(command, to_);
                context_default = "what the reference needs";
            }
            if (to_.command == Command::kPerplexity) {
                add_perplexity(command, to_);
                context_default = "--window";
            }
            command.add_flag("--json", to_.json, "Print one JSON object");
        }
        add_engine(command, to_.engine);
        if (to_.command != Command::kBench) add_threads(command, to_.engine.threads);
        if (to_.command != Command::kInspect && to_.command != Command::kPlan)
            add_ranks(command, to_);
        add_limits(command, to_.engine, context_default);
        command.add_flag("-v,--verbose", to_.verbose, "Say more on standard error, from all ranks")
            ->envname("CONCLAVE_VERBOSE");
    }

    Invocation& to_;
    RunText text_;
    PlanText plan_;
};

std::string help_hint(const CommandLine& line) {
    for (const CLI::App* command : line.app.get_subcommands())
        return "conclave " + command->get_name() + " --help";
    return "conclave --help";
}

Invocation help(const CLI::App& app) {
    Invocation to;
    to.text = app.help();
    return to;
}

}  // namespace

std::vector<int32_t> parse_ids(const std::string& text) {
    std::vector<int32_t> ids;
    const char *at = text.data(), *const end = at + text.size();
    while (true) {
        int32_t id = -1;
        const auto [next, failure] = std::from_chars(at, end, id);
        if (failure != std::errc() || id < 0 || (next != end && *next != ','))
            throw Error(ErrorCode::kUsage,
                        "--prompt-ids: wants token ids separated by commas, "
                        "such as 1,2,3, not " +
                            text);
        ids.push_back(id);
        if (next == end) return ids;
        at = next + 1;
    }
}

std::pair<int32_t, double> parse_bias(const std::string& text) {
    int32_t id = -1;
    double bias = 0;
    const char* const end = text.data() + text.size();
    const auto [next, failure] = std::from_chars(text.data(), end, id);
    if (failure == std::errc() && id >= 0 && next != end && (*next == '+' || *next == '-') &&
        CLI::detail::lexical_cast(std::string(next, end), bias) && std::abs(bias) <= 100)
        return {id, bias};
    throw Error(
        ErrorCode::kUsage,
        "--logit-bias: wants a token id and what to add, from -100 to 100, such as 15043-1, "
        "not " +
            text);
}

Invocation parse(std::vector<std::string> arguments) {
    CommandLine::check_command(arguments);
    Invocation to;
    CommandLine line(arguments.empty() ? "" : arguments.front(), to);
    spell_out_tp(arguments);
    std::reverse(arguments.begin(), arguments.end());  // the order CLI11 wants
    try {
        line.app.parse(std::move(arguments));
    } catch (const CLI::CallForHelp&) {
        const auto commands = line.app.get_subcommands();
        return help(commands.empty() ? line.app : *commands.front());
    } catch (const CLI::CallForVersion& e) {
        to.text = std::string(e.what()) + "\n";
        to.command = Command::kText;
        return to;
    } catch (const CLI::ParseError& e) {
        throw Error(ErrorCode::kUsage, std::string(e.what()) + " (see " + help_hint(line) + ")");
    }
    line.finish();
    return to;
}

}  // namespace conclave::launch
