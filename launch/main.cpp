// conclave: run, inspect, plan, verify and score models. Written on runtime/api, as any program
// that embeds the engine would be.
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/options.h"
#include "launch/session.h"

namespace conclave::launch {
namespace {

/// Plugins are tried in child processes, which must have ended before MPI starts: a process forks
/// only then. What is wrong with the arguments is said later, by rank 0 alone.
Plugins find_plugins(const std::vector<std::string>& arguments) {
    bool wanted = false;
    try {
        wanted = uses_plugins(parse(arguments).command);
    } catch (const Error&) {
    }
    return wanted ? load_plugins(default_plugin_path()) : Plugins();
}

void warn_of_refusals(const Invocation& invocation, const Plugins& plugins) {
    Console console(invocation.verbose);
    for (const PluginReport& p : plugins.found)
        if (!p.refusal.empty())
            console.log(0, LogLevel::kWarning, "plugin " + p.file + " refused: " + p.refusal);
}

int execute(Invocation invocation, const Plugins& plugins, const Comm& comm) {
    invocation.engine.extensions = plugins.extensions;
    if (comm.rank() == 0 && invocation.command != Command::kPlugins)
        warn_of_refusals(invocation, plugins);
    if (invocation.command == Command::kRun) return run(invocation, comm);
    if (invocation.command == Command::kVerify) return verify(invocation, comm);
    if (invocation.command == Command::kPerplexity) return perplexity(invocation, comm);
    if (invocation.command == Command::kBench) return bench(invocation, comm);
    if (invocation.command == Command::kDequantize) return dequantize(invocation, comm);
    if (invocation.command == Command::kDoctor) return doctor(invocation, comm);
    if (comm.rank() != 0) return 0;  // the rest needs no ranks
    if (invocation.command == Command::kInspect) return inspect(invocation);
    if (invocation.command == Command::kPlan) return plan(invocation);
    if (invocation.command == Command::kConform) return conform(invocation);
    if (invocation.command == Command::kPlugins) return launch::plugins(invocation, plugins);
    print(invocation.text);
    return 0;
}

int rank_main(const std::vector<std::string>& arguments, const Plugins& plugins, const Comm& comm) {
    Invocation invocation;
    together(comm, [&] {
        invocation = parse(arguments);
        if (invocation.local_ranks > 0)
            throw Error(ErrorCode::kUsage,
                        "--local-ranks runs ranks without MPI: start conclave without mpirun");
        if (invocation.command == Command::kConform)
            throw Error(ErrorCode::kUsage, "conform needs no ranks: start it without mpirun");
    });
    return execute(std::move(invocation), plugins, comm);
}

int start(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    const Plugins plugins = find_plugins(arguments);
    if (under_launcher())
        return run_mpi_ranks(&argc, &argv,
                             [&](const Comm& comm) { return rank_main(arguments, plugins, comm); });
    const Invocation invocation = parse(arguments);
    return run_local_ranks(invocation.local_ranks > 0 ? invocation.local_ranks : 1,
                           [&](const Comm& comm) { return execute(invocation, plugins, comm); });
}

}  // namespace
}  // namespace conclave::launch

int main(int argc, char** argv) {
    using conclave::launch::Console;
    try {
        return conclave::launch::start(argc, argv);
    } catch (const conclave::Error& e) {
        Console::error(e.what());
        return conclave::exit_code(e.code());
    } catch (const std::exception& e) {
        Console::error(e.what());
        return conclave::exit_code(conclave::ErrorCode::kInternal);
    }
}
