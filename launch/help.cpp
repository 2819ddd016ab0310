#include "launch/help.h"

#include <sstream>
#include <utility>

namespace conclave::launch {
namespace {

constexpr size_t kColumns = 100;
constexpr size_t kIndent = 36;  // where descriptions start

std::string option_names(const CLI::Option& option) {
    std::string names;
    const auto add = [&](const std::string& name) {
        names += names.empty() ? "" : ", ";
        names += name;
    };
    if (option.get_positional()) add(option.get_name(true, false));
    for (const auto& name : option.get_snames()) add("-" + name);
    for (const auto& name : option.get_lnames()) add("--" + name);
    if (option.get_type_size() != 0) names += " " + option.get_type_name();
    return "  " + names;
}

std::string option_text(const CLI::Option& option) {
    std::string text = option.get_description(), extra;
    if (!option.get_default_str().empty()) extra = "default: " + option.get_default_str();
    if (!option.get_envname().empty()) extra += (extra.empty() ? "" : "; ") + option.get_envname();
    return extra.empty() ? text : text + " [" + extra + "]";
}

void write_option(std::ostream& out, const std::string& names, const std::string& text) {
    std::string line = names;
    if (line.size() + 1 > kIndent) {
        out << line << '\n';
        line.clear();
    }
    line.resize(kIndent, ' ');
    std::istringstream words(text);
    for (std::string word; words >> word;) {
        if (line.size() > kIndent && line.size() + 1 + word.size() > kColumns) {
            out << line << '\n';
            line.assign(kIndent, ' ');
        }
        if (line.size() > kIndent) line += ' ';
        line += word;
    }
    out << line << '\n';
}

class HelpFormatter : public CLI::FormatterBase {
  public:
    explicit HelpFormatter(std::string usage) : usage_(std::move(usage)) {}

    std::string make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const override {
        std::ostringstream out;
        out << app->get_description() << "\n\nUsage: " << usage_ << '\n';
        const auto commands = app->get_subcommands([](const CLI::App*) { return true; });
        if (!commands.empty()) out << "\nCommands:\n";
        for (const CLI::App* command : commands)
            write_option(out, "  " + command->get_name(), command->get_description());
        for (const std::string& group : app->get_groups()) {
            const auto options = app->get_options(
                [&](const CLI::Option* option) { return option->get_group() == group; });
            if (group.empty() || options.empty()) continue;
            out << '\n' << group << ":\n";
            for (const CLI::Option* option : options)
                write_option(out, option_names(*option), option_text(*option));
        }
        out << '\n' << app->get_footer();
        return out.str();
    }

  private:
    std::string usage_;
};

}  // namespace

std::shared_ptr<CLI::FormatterBase> help_formatter(std::string usage) {
    return std::make_shared<HelpFormatter>(std::move(usage));
}

const char* const kHelpFooter =
    R"(`conclave COMMAND --help` lists the options of a command.

Examples:
  conclave run MODEL --prompt "O Romeo, Romeo!"         one process, all CPUs it may use
  mpirun -n 2 --bind-to none conclave run MODEL -p "O"  two ranks on this machine
  mpirun -n 8 --hostfile hosts --map-by ppr:1:numa:PE=16 --bind-to core \
      conclave run MODEL -p "O"                         one rank per NUMA node of several machines
  conclave plan MODEL --ranks 8                         what each of 8 ranks would hold and read
  conclave run MODEL --local-ranks 3 -p "O"             three ranks as threads, without MPI

A model is a directory as Hugging Face publishes it: config.json, *.safetensors and, for text,
tokenizer.json; or a .gguf file (of a split one, the first). Every rank opens the same path and
reads only its own part of the weights.

Exit codes:
  0   done
  1   verify: beyond the tolerance
  2   usage: an option that is unknown or cannot be, a prompt that is too long
  65  a file is there, but what it holds is wrong
  66  a file is missing or cannot be opened
  70  a fault in conclave itself
  71  memory, disk or address space ran out
  75  a rank or the network between ranks failed
  78  an architecture, format or CPU that is not supported
With 2, 65, 66 and 78, trying again will not help.

Environment: an option that names a variable takes its value from there when it is not on the
command line. CONCLAVE_ISA (generic, avx2, avx512 ...) limits the instruction set used.
)";

const char* const kRunHelpFooter =
    R"(Standard output is the generated text and a newline, nothing else; the prompt is not repeated.
A model without tokenizer.json takes --prompt-ids and prints ids separated by spaces. How fast
loading, prefill and decode went is on standard error.

Generation ends with -n tokens, at one of the model's end-of-text tokens (generation_config.json,
else config.json), or at a --stop text, wherever tokens begin and end. Neither special tokens nor
the --stop text are printed.

Without sampling options the most likely token is taken at each step (greedy). --top-k, --top-p
and --min-p without --temperature imply a temperature of 1. --logit-bias comes first, then the
penalties (repetition, frequency, presence), then temperature, --top-k, --top-p and --min-p.
Sampling depends on --seed, not on the number of ranks; --deterministic makes the tokens the same
at any number of ranks and threads.
)";

const char* const kInspectHelpFooter =
    R"(Reads config.json and the headers of the weight files, never the weights, and is safe on files
from anywhere. The options under "Engine" are accepted so that one set of flags and variables
serves all commands; they change nothing here.
)";

const char* const kPlanHelpFooter =
    R"(Works from config.json and headers alone, on one machine, without mpirun. Kernels are chosen for
the CPU that plan runs on.

With --link it predicts tokens/s instead, for hosts like this one joined by that link: rank 0's part
of the model (of as many layers as --measure-memory holds) generates here, and what its messages
would take is added: BANDWIDTH is what one host sends large messages at, LATENCY the way of a small
one, both as `conclave doctor` measures them. A rate limiter that lets some bytes through at once
(tc's tbf) has that size as a third part: 100Mbit,80us,256kB. Test hosts that share this machine's
cores are measured together with --hosts-here N.
)";

const char* const kVerifyHelpFooter =
    R"(The reference is a .safetensors file that every rank can open: `input_ids` [B,T] (I64) and the
`logits` [B,T,V] (F32) a trusted implementation computed for them; optionally `greedy_prompt` [P],
the `greedy_ids` [G] that follow it, and `greedy_margin` [G], the lead of the best logit over the
second at each step. All sequences run together, in one mixed batch.

Passes when no logit differs by more than --tolerance standard deviations of the reference, and
the greedy ids agree up to the first step whose margin is below 0.01. References come from float32
arithmetic: compare with --activations f32.
)";

const char* const kPerplexityHelpFooter =
    R"(The text is read by rank 0 and turned into tokens without adding any (no BOS). Window i feeds
tokens [stride * i, stride * i + window); each of its tokens is scored by the probability that it
gives the token after it. The perplexity is exp of the mean of -log p (natural logarithm, double),
with its standard error, for which scores count as independent.

Windows run together in one step as far as -b and --max-num-seqs allow. Figures to compare with
others come from the same tokens, --window, --windows and --stride, and from --activations f32.
)";

const char* const kDequantizeHelpFooter =
    R"(Every matrix is decoded to the numbers that its format defines and written under the name that
transformers gives it, with norms, embeddings and biases; config.json loses its
quantization_config, and the tokenizer's files are copied. Under mpirun every rank decodes and
writes what it would hold if it served the model: DIR must be on a file system that all ranks share.
The files are the same bytes at any number of ranks.

  conclave dequantize MODEL --out plain --dtype bf16
  mpirun -n 4 conclave dequantize MODEL --out /shared/plain
)";

const char* const kPluginsHelpFooter =
    R"(A plugin is a shared object (*.so) that adds quantization formats, shard indexers, kernels or
checkpoint readers. Every command that opens a model loads those of these directories, in order:
CONCLAVE_PLUGIN_PATH's (several: with colons between), plugins beside the program (of a build), and
../lib/conclave/plugins seen from there (installed). Each is tried in a process of its own first;
one that cannot be had is refused with a warning, and all goes on without it. All ranks must find
the same plugins.

runtime/sdk/README.md says how to write one.
)";

const char* const kBenchHelpFooter =
    R"(Each test runs once to warm up, then -r times; t/s is the mean with the standard deviation.
pp N is a prompt of N random tokens, tg N generates N tokens greedily for each of --batch-sizes
sequences, each with a random prompt of its own.

GB/s is the packed weights that all ranks read in a second, and "of read" its share of what the same
threads read from memory doing nothing else, measured just before in 2 MiB pages. comm is the share
of the time that rank 0 spends in collectives, waiting included.

  conclave bench launch/examples/shapes/bench --load-format dummy
  mpirun -n 2 --bind-to none conclave bench MODEL -p 512 -n 64 --batch-sizes 1,4,16
)";

const char* const kDoctorHelpFooter =
    R"(Needs no model. Start it as the model would be started: the same mpirun with the same flags.
For each rank: host, CPUs it may use (and how many it could have), NUMA nodes, threads that it would
run, instruction set (the best that all ranks have, and what this one has beyond), pages that its
memory got, and GB/s that it reads from memory while no other rank of its host does and while all
do. For each pair: half a round trip of 8 bytes, and GB/s of messages of up to 4 MiB (smaller where
the link is slow). Of more than 16 ranks only some pairs are measured, which is said. Then what to
change, with the flag or command. It takes about 10 s at most, and exits with 0 whatever it advises.

  conclave doctor
  mpirun -n 8 --hostfile hosts --map-by ppr:1:numa:PE=16 --bind-to core conclave doctor
)";

}  // namespace conclave::launch
