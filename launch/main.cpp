// conclave: run, inspect, plan, verify and score models. Written on runtime/api, as any program
// that embeds the engine would be.
#include <new>
#include <string>
#include <vector>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/options.h"
#include "launch/session.h"

namespace conclave::launch {
namespace {

int execute(const Invocation& invocation, const Comm& comm) {
    if (invocation.command == Command::kRun) return run(invocation, comm);
    if (invocation.command == Command::kVerify) return verify(invocation, comm);
    if (invocation.command == Command::kPerplexity) return perplexity(invocation, comm);
    if (invocation.command == Command::kBench) return bench(invocation, comm);
    if (invocation.command == Command::kDequantize) return dequantize(invocation, comm);
    if (comm.rank() != 0) return 0;  // the rest needs no ranks
    if (invocation.command == Command::kInspect) return inspect(invocation);
    if (invocation.command == Command::kPlan) return plan(invocation);
    print(invocation.text);
    return 0;
}

int rank_main(const std::vector<std::string>& arguments, const Comm& comm) {
    Invocation invocation;
    together(comm, [&] {
        invocation = parse(arguments);
        if (invocation.local_ranks > 0)
            throw Error(ErrorCode::kUsage,
                        "--local-ranks runs ranks without MPI: start conclave without mpirun");
    });
    return execute(invocation, comm);
}

int start(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (under_launcher())
        return run_mpi_ranks(&argc, &argv,
                             [&](const Comm& comm) { return rank_main(arguments, comm); });
    const Invocation invocation = parse(arguments);
    return run_local_ranks(invocation.local_ranks > 0 ? invocation.local_ranks : 1,
                           [&](const Comm& comm) { return execute(invocation, comm); });
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
