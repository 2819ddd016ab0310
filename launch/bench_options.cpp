#include "launch/bench_options.h"

#include "launch/validators.h"

namespace conclave::launch {
namespace {

/// "1,2,4": whole numbers.
CLI::Option* add_counts(CLI::App& app, const char* name, std::vector<int64_t>& to, int64_t least,
                        const char* what, const std::string& fallback) {
    return app.add_option(name, to, what)
        ->delimiter(',')
        ->check(at_least(least, 1 << 20))
        ->type_name("N,N")
        ->group("Measurement")
        ->default_str(fallback);
}

}  // namespace

void add_bench(CLI::App& app, BenchOptions& to) {
    app.add_option("-p,--n-prompt", to.prompt, "Tokens of the prompt test; 0: none")
        ->check(at_least(0, 1 << 20))
        ->type_name("N")
        ->group("Measurement")
        ->capture_default_str();
    app.add_option("-n,--n-gen", to.generate, "Tokens of the generation tests; 0: none")
        ->check(at_least(0, 1 << 20))
        ->type_name("N")
        ->group("Measurement")
        ->capture_default_str();
    app.add_option("-r,--repetitions", to.repetitions, "Runs of each test")
        ->check(at_least(1, 1000))
        ->type_name("N")
        ->group("Measurement")
        ->capture_default_str();
    add_counts(app, "--batch-sizes", to.batches, 1, "Sequences that generate together", "1");
    add_counts(app, "-t,--threads", to.threads, 1,
               "Threads of each rank; several: one engine after the other", kThreadsDefault)
        ->envname("CONCLAVE_THREADS");
    add_counts(app, "-d,--n-depth", to.depths, 0,
               "Tokens of context that the generation tests begin after", "0");
    app.add_option("-o,--output", to.output, "md (a table) or json")
        ->check(one_of({"md", "json"}))
        ->type_name("FORMAT")
        ->group("Measurement")
        ->default_str("md");
}

}  // namespace conclave::launch
