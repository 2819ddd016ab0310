// The command line: what was asked for, checked as far as that is possible without a model.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "launch/perplexity.h"
#include "runtime/api/conclave.hpp"
#include "runtime/api/conclave_conform.hpp"
#include "runtime/api/conclave_predict.hpp"

namespace conclave::launch {

enum class Command {
    kText,
    kRun,
    kInspect,
    kPlan,
    kVerify,
    kPerplexity,
    kBench,
    kDequantize,
    kPlugins,
    kConform,
    kDoctor
};

struct RunOptions {
    std::string prompt, file;  ///< one of prompt, file and prompt_ids is given
    std::vector<int32_t> prompt_ids;
    bool from_ids = false, from_file = false;
    int64_t max_tokens = 128;
    SamplingParams sampling;
    bool ignore_eos = false;
    std::vector<std::string> stop;
};

/// As llama-bench has them.
struct BenchOptions {
    int64_t prompt = 512, generate = 128, repetitions = 5;
    std::vector<int64_t> batches = {1};
    std::vector<int64_t> depths = {0};  ///< tokens of context before generation
    std::vector<int64_t> threads;  ///< of each rank, one engine after the other; empty: the default
    std::string output = "md";
};

struct Invocation {
    Command command = Command::kText;
    std::string text;  ///< kText: help or version, for standard output
    EngineOptions engine;
    int local_ranks = 0;  ///< > 0: that many ranks as threads of this process
    bool verbose = false, json = false;
    RunOptions run;
    int plan_ranks = 1;      ///< the first of predict.ranks
    PredictOptions predict;  ///< plan: with links only
    bool plan_kernels = false;
    std::string reference;  ///< verify
    double tolerance = 1e-4;
    BenchOptions bench;
    std::string text_file;  ///< perplexity
    Windows windows;
    DequantizeOptions dequantize;
    ConformOptions conform;
    bool conform_list = false;
};

/// `arguments` without the program's name. Throws Error(kUsage) that says what to do.
Invocation parse(std::vector<std::string> arguments);

/// Whether the command opens a model, or lists plugins.
constexpr bool uses_plugins(Command command) {
    return command != Command::kText && command != Command::kConform && command != Command::kDoctor;
}

/// "1,2,3" -> {1, 2, 3}. Throws Error(kUsage).
std::vector<int32_t> parse_ids(const std::string& text);

/// "1,2,4-6" -> {1, 2, 4, 5, 6}. Throws Error(kUsage).
std::vector<int> parse_ranks(const std::string& text);

/// "15043-1.5" -> {15043, -1.5}. Throws Error(kUsage).
std::pair<int32_t, double> parse_bias(const std::string& text);

}  // namespace conclave::launch
