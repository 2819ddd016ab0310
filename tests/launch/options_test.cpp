#include "launch/options.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace conclave::launch {
namespace {

/// The message of the usage error that the arguments must give.
std::string usage_error(std::vector<std::string> arguments) {
    try {
        parse(arguments);
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kUsage);
        EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
        return e.what();
    }
    ADD_FAILURE() << "accepted: " << testing::PrintToString(arguments);
    return {};
}

class Variable {
  public:
    Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
    ~Variable() { unsetenv(name_); }

  private:
    const char* name_;
};

TEST(Options, RunTakesBothFamiliesOfFlags) {
    const Invocation a = parse({"run", "M", "-p", "Hi", "-n", "7", "-c", "99", "-t", "3", "-b",
                                "64", "-s", "5", "--temp", "0.5"});
    const Invocation b = parse(
        {"run", "-m", "M", "--prompt", "Hi", "--max-tokens=7", "--max-model-len", "99", "--threads",
         "3", "--max-num-batched-tokens", "64", "--seed", "5", "--temperature=0.5"});
    for (const Invocation& i : {a, b}) {
        EXPECT_EQ(i.command, Command::kRun);
        EXPECT_EQ(i.engine.model, "M");
        EXPECT_EQ(i.run.prompt, "Hi");
        EXPECT_EQ(i.run.max_tokens, 7);
        EXPECT_EQ(i.engine.max_model_len, 99);
        EXPECT_EQ(i.engine.threads, 3);
        EXPECT_EQ(i.engine.max_num_batched_tokens, 64);
        EXPECT_EQ(i.run.sampling.seed, 5u);
        EXPECT_EQ(i.run.sampling.temperature, 0.5);
    }
}

TEST(Options, DefaultsAreGreedyAndOneRank) {
    const Invocation i = parse({"run", "M", "-p", "Hi"});
    EXPECT_EQ(i.run.sampling.temperature, 0);
    EXPECT_EQ(i.engine.max_model_len, 0);
    EXPECT_EQ(i.engine.threads, 0);
    EXPECT_EQ(i.engine.activations, "auto");
    EXPECT_EQ(i.engine.expert_parallel, "auto");
    EXPECT_EQ(i.engine.kv_cache_dtype, "auto");
    EXPECT_FALSE(i.engine.deterministic);
    EXPECT_EQ(i.local_ranks, 0);
}

TEST(Options, FiltersAloneMeanSampling) {
    EXPECT_EQ(parse({"run", "M", "-p", "x", "--top-k", "5"}).run.sampling.temperature, 1);
    EXPECT_EQ(parse({"run", "M", "-p", "x", "--min-p", "0.1"}).run.sampling.temperature, 1);
    EXPECT_EQ(
        parse({"run", "M", "-p", "x", "--top-p", "0.9", "--temp", "0"}).run.sampling.temperature,
        0);
    EXPECT_EQ(parse({"run", "M", "-p", "x", "--seed", "3"}).run.sampling.temperature, 0);
}

TEST(Options, Deadline) {
    EXPECT_EQ(parse({"run", "M", "-p", "x"}).engine.deadline_seconds, 300);
    EXPECT_EQ(parse({"run", "M", "-p", "x", "--deadline", "2.5"}).engine.deadline_seconds, 2.5);
    const Variable variable("CONCLAVE_DEADLINE", "7");
    EXPECT_EQ(parse({"verify", "M", "--reference", "R"}).engine.deadline_seconds, 7);
    for (const char* wrong : {"-1", "nan", "soon"})
        usage_error({"run", "M", "-p", "x", "--deadline", wrong});
}

TEST(Options, SeedUsesAllBits) {
    EXPECT_EQ(parse({"run", "M", "-p", "x", "-s", "18446744073709551615"}).run.sampling.seed,
              ~uint64_t{0});
    usage_error({"run", "M", "-p", "x", "-s", "-1"});
    usage_error({"run", "M", "-p", "x", "-s", "18446744073709551616"});
}

TEST(Options, PromptMayLookLikeAnOptionOrBeEmpty) {
    EXPECT_EQ(parse({"run", "M", "-p", "-n"}).run.prompt, "-n");
    EXPECT_EQ(parse({"run", "M", "--prompt=--json"}).run.prompt, "--json");
    EXPECT_EQ(parse({"run", "M", "-p", ""}).run.prompt, "");
    EXPECT_EQ(parse({"run", "M", "-p", "two\nlines, \"quoted\" [x]"}).run.prompt,
              "two\nlines, \"quoted\" [x]");
}

TEST(Options, ExactlyOnePrompt) {
    EXPECT_NE(usage_error({"run", "M"}).find("--prompt-ids"), std::string::npos);
    usage_error({"run", "M", "-p", "x", "--prompt-ids", "1"});
    usage_error({"run", "M", "-p", "x", "-f", "file"});
    EXPECT_TRUE(parse({"run", "M", "-f", "file"}).run.from_file);
}

TEST(Options, PromptIds) {
    const Invocation i = parse({"run", "--prompt-ids", "1,22,2147483647", "M"});
    EXPECT_EQ(i.run.prompt_ids, (std::vector<int32_t>{1, 22, 2147483647}));
    EXPECT_TRUE(i.run.from_ids);
    EXPECT_EQ(i.engine.model, "M");
    for (const char* bad : {"", ",", "1,", ",1", "1,,2", "1 2", "-1", "1.5", "x", "2147483648"})
        EXPECT_THROW(parse_ids(bad), Error) << bad;
}

TEST(Options, LayoutsOfExperts) {
    for (const char* good : {"auto", "tp", "ep", "2x4", "1x1", "16x3"})
        EXPECT_EQ(parse({"plan", "M", "--expert-parallel", good}).engine.expert_parallel, good);
    for (const char* bad : {"", "x", "2x", "x4", "0x4", "2x04x", "-1x2", "2X4", "2x4x1", "yes"})
        usage_error({"plan", "M", "--expert-parallel", bad});
}

TEST(Options, TensorParallelSizeHasAShortForm) {
    EXPECT_EQ(parse({"run", "M", "-p", "x", "-tp", "4"}).engine.tensor_parallel_size, 4);
    EXPECT_EQ(parse({"run", "M", "-p", "x", "-tp=4"}).engine.tensor_parallel_size, 4);
    EXPECT_EQ(
        parse({"run", "M", "-p", "x", "--tensor-parallel-size", "4"}).engine.tensor_parallel_size,
        4);
}

TEST(Options, ValuesThatCannotBe) {
    for (const std::vector<std::string>& bad :
         std::vector<std::vector<std::string>>{{"--temperature", "-1"},
                                               {"--temperature", "nan"},
                                               {"--temperature", "warm"},
                                               {"--top-p", "0"},
                                               {"--top-p", "1.01"},
                                               {"--top-k", "-1"},
                                               {"--min-p", "2"},
                                               {"-n", "0"},
                                               {"-n", "-5"},
                                               {"-n", "1.5"},
                                               {"-n", "1e3"},
                                               {"-n", "99999999999999999999"},
                                               {"-t", "0"},
                                               {"-c", "0"},
                                               {"-b", "0"},
                                               {"--max-num-seqs", "0"},
                                               {"--local-ranks", "0"},
                                               {"--local-ranks", "100000"},
                                               {"--activations", "int4"},
                                               {"--kv-cache-dtype", "fp8"},
                                               {"--tensor-parallel-size", "0"},
                                               {"--no-such-flag"},
                                               {"-n"},
                                               {"-n", "1", "-n", "2"},
                                               {"surplus"}}) {
        std::vector<std::string> arguments = {"run", "M", "-p", "x"};
        arguments.insert(arguments.end(), bad.begin(), bad.end());
        const std::string message = usage_error(arguments);
        EXPECT_NE(message.find("conclave run --help"), std::string::npos) << message;
    }
}

TEST(Options, CommandsAndModelsAreNeeded) {
    usage_error({});
    usage_error({"fly"});
    usage_error({"run", "-p", "x"});
    usage_error({"inspect"});
    usage_error({"verify", "M"});
    usage_error({"inspect", "M", "--local-ranks", "2"});
}

TEST(Options, AllCommandsTakeTheSharedFlags) {
    const std::vector<std::vector<std::string>> commands = {{"run", "M", "-p", "x"},
                                                            {"inspect", "M"},
                                                            {"plan", "M", "--ranks", "4"},
                                                            {"verify", "M", "--reference", "R"},
                                                            {"perplexity", "M", "F"}};
    for (std::vector<std::string> arguments : commands) {
        for (const char* shared : {"--activations", "f32", "--deterministic", "--expert-parallel",
                                   "2x2", "--quantization", "none"})
            arguments.push_back(shared);
        const EngineOptions engine = parse(arguments).engine;
        EXPECT_EQ(engine.activations, "f32");
        EXPECT_TRUE(engine.deterministic);
        EXPECT_EQ(engine.expert_parallel, "2x2");
        EXPECT_EQ(engine.quantization, "none");
    }
}

TEST(Options, PlanAndVerify) {
    const Invocation plan = parse({"plan", "M", "--ranks", "5", "--json", "--kernels"});
    EXPECT_EQ(plan.command, Command::kPlan);
    EXPECT_EQ(plan.plan_ranks, 5);
    EXPECT_TRUE(plan.json && plan.plan_kernels);
    const Invocation verify =
        parse({"verify", "M", "--reference", "R", "--tolerance", "2e-5", "--local-ranks", "3"});
    EXPECT_EQ(verify.reference, "R");
    EXPECT_EQ(verify.tolerance, 2e-5);
    EXPECT_EQ(verify.local_ranks, 3);
    EXPECT_EQ(parse({"verify", "M", "--reference", "R"}).tolerance, 1e-4);
    usage_error({"verify", "M", "--reference", "R", "--tolerance", "nan"});
    usage_error({"verify", "M", "--reference", "R", "--tolerance", "-1"});
}

TEST(Options, Perplexity) {
    const Invocation plain = parse({"perplexity", "M", "F"});
    EXPECT_EQ(plain.command, Command::kPerplexity);
    EXPECT_EQ(plain.engine.model, "M");
    EXPECT_EQ(plain.text_file, "F");
    EXPECT_EQ(plain.windows.window, 128);
    EXPECT_EQ(plain.windows.count, 24);
    EXPECT_EQ(plain.windows.begin(1), 128);
    const Invocation all = parse({"perplexity", "-m", "M", "-f", "F", "--window", "64", "--windows",
                                  "3", "--stride", "32", "--json", "--local-ranks", "2"});
    EXPECT_EQ(all.text_file, "F");
    EXPECT_EQ(all.windows.window, 64);
    EXPECT_EQ(all.windows.count, 3);
    EXPECT_EQ(all.windows.begin(1), 32);
    EXPECT_TRUE(all.json);
    EXPECT_EQ(all.local_ranks, 2);
    usage_error({"perplexity", "M"});
    for (const char* option : {"--window", "--windows", "--stride"})
        for (const char* value : {"0", "-1", "1.5", "many"})
            EXPECT_NE(usage_error({"perplexity", "M", "F", option, value}).find(option),
                      std::string::npos);
}

TEST(Options, StopsAreTakenAsTheyAre) {
    const std::vector<std::string> run = {"run", "M", "-p", "x"};
    const auto stops = [&](std::vector<std::string> more) {
        more.insert(more.begin(), run.begin(), run.end());
        return parse(more).run.stop;
    };
    using Texts = std::vector<std::string>;
    EXPECT_EQ(stops({}), Texts{});
    EXPECT_EQ(stops({"--stop", "a b", "--stop", "[a,b]", "--stop=-p", "--stop", "\n"}),
              (Texts{"a b", "[a,b]", "-p", "\n"}));
    EXPECT_EQ(stops({"--stop", ""}), Texts{""}) << "for the tokenizer to refuse";
    usage_error({"run", "M", "-p", "x", "--stop"});
}

TEST(Options, PenaltiesAndBias) {
    const SamplingParams none = parse({"run", "M", "-p", "x"}).run.sampling;
    EXPECT_EQ(none.repetition_penalty, 1);
    EXPECT_EQ(none.presence_penalty, 0);
    EXPECT_EQ(none.frequency_penalty, 0);
    EXPECT_TRUE(none.logit_bias.empty());
    const SamplingParams p =
        parse({"run", "M", "-p", "x", "--repetition-penalty", "1.1", "--presence-penalty", "-0.5",
               "--frequency-penalty", "2", "--logit-bias", "15043-1.5", "--logit-bias=7+1e1"})
            .run.sampling;
    EXPECT_EQ(p.temperature, 0) << "greedy with penalties";
    EXPECT_EQ(p.repetition_penalty, 1.1);
    EXPECT_EQ(p.presence_penalty, -0.5);
    EXPECT_EQ(p.frequency_penalty, 2);
    using Biases = std::vector<std::pair<int32_t, double>>;
    EXPECT_EQ(p.logit_bias, (Biases{{15043, -1.5}, {7, 10}}));
    EXPECT_EQ(
        parse({"run", "M", "-p", "x", "--repeat-penalty", "2"}).run.sampling.repetition_penalty, 2);
    for (const char* option : {"--repetition-penalty", "--presence-penalty", "--frequency-penalty"})
        for (const char* value : {"nan", "inf", "101", "-3", "x"})
            EXPECT_NE(usage_error({"run", "M", "-p", "x", option, value}).find(option),
                      std::string::npos);
    for (const char* bias :
         {"", "7", "7=1", "+1", "7+", "7+x", "7+nan", "7+101", "-7+1", "7+1,8", "99999999999+1"})
        EXPECT_NE(usage_error({"run", "M", "-p", "x", "--logit-bias", bias}).find("--logit-bias"),
                  std::string::npos);
}

TEST(Options, FlagsComeBeforeTheEnvironment) {
    const Variable threads("CONCLAVE_THREADS", "6"), deterministic("CONCLAVE_DETERMINISTIC", "1");
    EXPECT_EQ(parse({"run", "M", "-p", "x"}).engine.threads, 6);
    EXPECT_TRUE(parse({"run", "M", "-p", "x"}).engine.deterministic);
    EXPECT_EQ(parse({"run", "M", "-p", "x", "-t", "2"}).engine.threads, 2);
    const Variable broken("CONCLAVE_ACTIVATIONS", "f99");
    usage_error({"run", "M", "-p", "x"});
    EXPECT_EQ(parse({"run", "M", "-p", "x", "--activations", "f32"}).engine.activations, "f32");
}

TEST(Options, HelpNamesDefaultsAndVariables) {
    const Invocation top = parse({"--help"});
    EXPECT_EQ(top.command, Command::kText);
    for (const char* word :
         {"run", "inspect", "plan", "verify", "perplexity", "mpirun", "65", "78"})
        EXPECT_NE(top.text.find(word), std::string::npos) << word;
    const std::string run = parse({"run", "--help"}).text;
    for (const char* word : {"--prompt-ids", "CONCLAVE_THREADS", "default: 128",
                             "Sampling:", "--stop", "--logit-bias"})
        EXPECT_NE(run.find(word), std::string::npos) << word;
    for (const char* command : {"inspect", "plan", "verify", "perplexity", "version"})
        EXPECT_NE(parse({command, "-h"}).text.find("Usage: conclave "), std::string::npos);
    EXPECT_EQ(parse({"version"}).text, parse({"--version"}).text);
}

}  // namespace
}  // namespace conclave::launch
