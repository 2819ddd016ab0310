// An MPI program, some ranks of which embed an engine while the others compute something else. See
// README.md.
#include <mpi.h>
#include <conclave.hpp>
#include <conclave_mpi.hpp>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>

#include "heat.h"

namespace {

constexpr int kHeatTag = 1;

struct Options {
    std::string model, prompt = "O Romeo, Romeo! ";
    int engine_ranks = 0;  // 0: the lower half
    int64_t tokens = 32;
    int heat_steps = 2000;
    bool deterministic = false;
};

bool parse(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        if (name == "--deterministic") {
            options.deterministic = true;
        } else if (name[0] != '-') {
            options.model = name;
        } else {
            if (++i == argc) return false;
            if (name == "--prompt")
                options.prompt = argv[i];
            else if (name == "--engine-ranks")
                options.engine_ranks = std::atoi(argv[i]);
            else if (name == "--heat-steps")
                options.heat_steps = std::atoi(argv[i]);
            else if (name == "-n")
                options.tokens = std::atol(argv[i]);
            else
                return false;
        }
    }
    return !options.model.empty();
}

struct Generated {
    std::string text, how;
};

/// Collective over `ranks`. The text is rank 0's.
Generated generate(MPI_Comm ranks, const Options& options) {
    // The library duplicates `ranks` once, and talks on its duplicate only. It does not use
    // MPI_COMM_WORLD, so the other ranks of the program need not know of it.
    const conclave::Comm comm = conclave::comm_from_mpi(&ranks);
    conclave::EngineOptions engine_options;
    engine_options.model = options.model;
    engine_options.deterministic = options.deterministic;
    conclave::Engine engine(engine_options, comm);
    if (engine.rank() != 0) {
        engine.follow();  // until rank 0 shuts down
        return {};
    }
    const auto tokenizer = conclave::Tokenizer::open(options.model);
    if (!tokenizer)
        throw conclave::Error(conclave::ErrorCode::kMissingFile, "the model has no tokenizer.json");
    conclave::SequenceRequest request;
    request.prompt = tokenizer->encode(options.prompt);
    request.max_tokens = options.tokens;
    engine.add(request);

    Generated result{options.prompt, engine.description()};
    conclave::TextStream text = tokenizer->stream();
    while (engine.has_work())
        for (const conclave::TokenOutput& t : engine.step())
            if (t.token >= 0) result.text += text.add(t.token);
    result.text += text.finish();
    engine.shutdown();
    return result;
}

void run(const Options& options) {
    int rank = 0, size = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    const int engine_ranks = options.engine_ranks > 0 ? options.engine_ranks : size / 2;
    if (engine_ranks >= size) throw std::runtime_error("no rank is left for the heat");
    MPI_Comm part = MPI_COMM_NULL;
    MPI_Comm_split(MPI_COMM_WORLD, rank < engine_ranks ? 0 : 1, rank, &part);

    if (rank >= engine_ranks) {
        const HeatResult heat = spread_heat(part, options.heat_steps);
        if (rank == engine_ranks)
            MPI_Send(&heat, sizeof heat, MPI_BYTE, 0, kHeatTag, MPI_COMM_WORLD);
    } else {
        // Whatever the program has under way goes on beside the engine.
        HeatResult heat;
        MPI_Request awaited = MPI_REQUEST_NULL;
        if (rank == 0)
            MPI_Irecv(&heat, sizeof heat, MPI_BYTE, MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD,
                      &awaited);
        const Generated generated = generate(part, options);
        MPI_Wait(&awaited, MPI_STATUS_IGNORE);
        if (rank == 0) {
            std::printf("%s\n", generated.text.c_str());
            std::printf("engine: %d ranks, %s\n", engine_ranks, generated.how.c_str());
            std::printf("heat: %d ranks, %d steps, total %.6f, hottest %.6f\n", heat.ranks,
                        heat.steps, heat.total, heat.hottest);
        }
    }
    MPI_Comm_free(&part);
}

}  // namespace

int main(int argc, char** argv) {
    // The engine computes with threads, and calls MPI from the thread that calls the engine.
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    Options options;
    int code = 0;
    try {
        if (parse(argc, argv, options)) {
            run(options);
        } else {
            code = 2;
            std::fprintf(stderr,
                         "usage: mpirun -n RANKS embed-mpi MODEL [--engine-ranks K] [-n TOKENS]\n"
                         "       [--prompt TEXT] [--heat-steps N] [--deterministic]\n");
        }
    } catch (const std::exception& e) {
        // An engine's error comes to all of its ranks, but the others know nothing of it.
        std::fprintf(stderr, "embed-mpi: %s\n", e.what());
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    MPI_Finalize();
    return code;
}
