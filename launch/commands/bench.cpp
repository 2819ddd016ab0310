#include <spdlog/fmt/fmt.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/engine_options.h"
#include "launch/format.h"
#include "launch/session.h"

namespace conclave::launch {
namespace {

struct Test {
    std::string name;  ///< "pp512", "tg128 x4", "tg128 @ d2048"
    int64_t prompt = 0, generate = 0, batch = 1;
};

/// An engine that was measured.
struct Run {
    ModelSummary model;
    LoadReport load;
    std::string description;
    double weight_bytes = 0;  ///< packed, of all ranks
    double read_limit = 0;    ///< bytes/s that its threads read from memory
};

struct Result {
    Run run;
    Test test;
    std::vector<double> rates;    ///< tokens/s of each run
    double bytes_per_second = 0;  ///< packed weights read by rank 0, over its share of the ranks
    double communication = 0;     ///< share of the time
};

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

double mean(const std::vector<double>& v) {
    double sum = 0;
    for (double x : v) sum += x;
    return sum / static_cast<double>(v.size());
}

double deviation(const std::vector<double>& v) {
    if (v.size() < 2) return 0;
    double squares = 0;
    for (double x : v) squares += (x - mean(v)) * (x - mean(v));
    return std::sqrt(squares / static_cast<double>(v.size() - 1));
}

std::vector<Test> tests_of(const BenchOptions& o) {
    std::vector<Test> tests;
    if (o.prompt > 0) tests.push_back({fmt::format("pp{}", o.prompt), o.prompt, 0, 1});
    if (o.generate > 0)
        for (int64_t d : o.depths)
            for (int64_t b : o.batches)
                tests.push_back(
                    {fmt::format("tg{}{}{}", o.generate, b > 1 ? fmt::format(" x{}", b) : "",
                                 d > 0 ? fmt::format(" @ d{}", d) : ""),
                     d + 1, o.generate, b});
    return tests;
}

/// What a run's timed steps did.
struct Sample {
    double seconds = 0, tokens = 0;
    double weight_bytes = 0, communication = 0;  ///< of rank 0; seconds
};

/// One run. A generation test is timed from when every sequence has its first token, which comes
/// with its prompt's last step.
Sample run_once(Engine& engine, Lead& lead, const Test& test, std::mt19937& random) {
    for (int64_t b = 0; b < test.batch; ++b) {
        SequenceRequest r;
        for (int64_t t = 0; t < test.prompt; ++t)
            r.prompt.push_back(static_cast<int32_t>(random() % engine.vocab_size()));
        r.max_tokens = test.generate > 0 ? test.generate + 1 : 1;
        r.ignore_eos = true;
        // Any of the likely tokens: sequences that converge on one would choose the same experts.
        r.sampling.temperature = 1e6;
        r.sampling.top_k = 64;
        r.sampling.seed = random();
        engine.add(std::move(r));
    }
    std::set<uint64_t> begun;
    while (test.generate > 0 && begun.size() < static_cast<size_t>(test.batch))
        for (const TokenOutput& t : lead.step()) begun.insert(t.sequence);
    const EngineStats before = engine.stats();
    const double begin = seconds_now();
    size_t made = 0;
    while (engine.has_work()) made += lead.step().size();
    Sample sample;
    sample.seconds = seconds_now() - begin;
    const EngineStats after = engine.stats();
    sample.tokens = static_cast<double>(test.generate > 0 ? made : test.prompt);
    sample.weight_bytes = static_cast<double>(after.weight_bytes_read - before.weight_bytes_read);
    sample.communication =
        static_cast<double>(after.communication_nanoseconds - before.communication_nanoseconds) *
        1e-9;
    return sample;
}

Result measure(Engine& engine, Lead& lead, const Run& run, const Test& test, int64_t repetitions) {
    std::mt19937 random(1);
    Result result{run, test, {}, 0, 0};
    run_once(engine, lead, test, random);
    Sample all;
    for (int64_t i = 0; i < repetitions; ++i) {
        const Sample s = run_once(engine, lead, test, random);
        result.rates.push_back(s.tokens / s.seconds);
        all.seconds += s.seconds;
        all.weight_bytes += s.weight_bytes;
        all.communication += s.communication;
    }
    result.bytes_per_second = all.weight_bytes / all.seconds * engine.size();
    result.communication = all.communication / all.seconds;
    return result;
}

void print_table(const std::vector<Result>& results) {
    std::string out =
        "| model | weights | ranks | threads | layout | test | t/s | GB/s | of read | comm |\n"
        "| --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |\n";
    for (const Result& r : results)
        out += fmt::format(
            "| {} | {} | {} | {} | {} | {} | {:.2f} ± {:.2f} | {:.1f} | {:.0f} % | {:.0f} % |\n",
            terminal_safe(r.run.model.model_type), human_bytes(r.run.weight_bytes),
            r.run.load.ranks, r.run.load.threads, r.run.load.layout, r.test.name, mean(r.rates),
            deviation(r.rates), r.bytes_per_second / 1e9,
            100 * r.bytes_per_second / r.run.read_limit, 100 * r.communication);
    print(out);
}

void print_json(const std::vector<Result>& results) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const Result& r : results) {
        nlohmann::ordered_json j;
        j["version"] = conclave::version();
        j["model"] = r.run.model.path;
        j["model_type"] = r.run.model.model_type;
        j["description"] = r.run.description;
        j["ranks"] = r.run.load.ranks;
        j["n_threads"] = r.run.load.threads;
        j["layout"] = r.run.load.layout;
        j["load_seconds"] = r.run.load.seconds;
        j["weight_bytes"] = r.run.weight_bytes;
        j["test"] = r.test.name;
        j["n_prompt"] = r.test.generate > 0 ? 0 : r.test.prompt;
        j["n_gen"] = r.test.generate;
        j["batch_size"] = r.test.batch;
        j["n_depth"] = r.test.generate > 0 ? r.test.prompt - 1 : 0;
        j["avg_ts"] = mean(r.rates);
        j["stddev_ts"] = deviation(r.rates);
        j["samples_ts"] = r.rates;
        j["weight_bytes_per_second"] = r.bytes_per_second;
        j["read_bytes_per_second"] = r.run.read_limit;
        j["share_of_read"] = r.bytes_per_second / r.run.read_limit;
        j["communication_share"] = r.communication;
        all.push_back(std::move(j));
    }
    print(all.dump(1) + "\n");
}

/// Collective: loads the model and runs all tests; results on rank 0. The memory's read rate is the
/// better of two probes, one before and one after: a probe that met other work would flatter.
void measure_engine(const EngineOptions& options, const Comm& comm, const std::vector<Test>& tests,
                    int64_t repetitions, Console& console, std::vector<Result>& results) {
    double read_limit = read_bandwidth(options, comm);
    const size_t first = results.size();
    {
        Engine engine(options, comm);
        if (engine.rank() != 0) {
            engine.follow();
        } else {
            console.line(loaded_line(engine.load_report()));
            console.line(engine.description());
            const Run run{
                engine.model(), engine.load_report(), engine.description(),
                static_cast<double>(engine.stats().resident_weight_bytes) * engine.size()};
            Lead lead(engine);
            for (const Test& t : tests) {
                console.line("measuring " + t.name);
                results.push_back(measure(engine, lead, run, t, repetitions));
            }
            lead.finish();
        }
    }
    read_limit = std::max(read_limit, read_bandwidth(options, comm));
    for (size_t i = first; i < results.size(); ++i) results[i].run.read_limit = read_limit;
    if (comm.rank() == 0)
        console.line(fmt::format("memory reads at {:.1f} GB/s", read_limit / 1e9));
}

}  // namespace

int bench(const Invocation& invocation, const Comm& comm) {
    Console console(invocation.verbose);
    EngineOptions options = engine_options(invocation, comm, console);
    const BenchOptions& bench = invocation.bench;
    const std::vector<Test> tests = tests_of(bench);
    together(comm, [&] {
        if (tests.empty())
            throw Error(ErrorCode::kUsage, "nothing to measure: --n-prompt and --n-gen are both 0");
    });
    int64_t longest = 0, batch = 1;
    for (const Test& t : tests) {
        longest = std::max(longest, t.prompt + t.generate + 1);
        batch = std::max(batch, t.batch);
    }
    if (options.max_model_len == 0) options.max_model_len = longest;
    options.max_num_seqs = std::max(options.max_num_seqs, batch);
    // Whole blocks of 32 tokens for every sequence.
    options.kv_cache_tokens = std::max(options.max_model_len, batch * (longest + 32));
    std::vector<int64_t> threads = bench.threads;
    if (threads.empty()) threads.push_back(0);
    std::vector<Result> results;
    for (int64_t t : threads) {
        options.threads = static_cast<int>(t);
        measure_engine(options, comm, tests, bench.repetitions, console, results);
    }
    if (comm.rank() != 0) return 0;
    if (bench.output == "json" || invocation.json)
        print_json(results);
    else
        print_table(results);
    return 0;
}

}  // namespace conclave::launch
