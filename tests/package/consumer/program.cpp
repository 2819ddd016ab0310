// program MODEL: the ids of eight tokens, by the C++ interface. Headers are named in every way that
// is allowed, to no harm.
#include <conclave.h>

#include <conclave.hpp>
#include <conclave_mpi.hpp>
#include <runtime/api/conclave.hpp>
#include <runtime/api/conclave_conform.hpp>

#include <cstdio>

int main(int argc, char** argv) try {
    if (argc != 2) return 2;
    conclave::EngineOptions options;
    options.model = argv[1];
    options.activations = "f32";
    options.deterministic = true;
    conclave::Engine engine(options, conclave::Comm::self());
    conclave::SequenceRequest request;
    request.prompt = {5, 6, 7};
    request.max_tokens = 8;
    request.ignore_eos = true;
    engine.add(request);
    const char* between = "";
    while (engine.has_work())
        for (const conclave::TokenOutput& output : engine.step()) {
            std::printf("%s%d", between, static_cast<int>(output.token));
            between = " ";
        }
    std::puts("");
    engine.shutdown();
    try {  // an Error of the library is caught as one here
        options.model = "/no/such/model";
        conclave::Engine(options, conclave::Comm::self());
    } catch (const conclave::Error& error) {
        return error.code() == conclave::ErrorCode::kMissingFile ? 0 : 3;
    }
    return 4;
} catch (const conclave::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
