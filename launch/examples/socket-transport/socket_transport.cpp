// An engine whose ranks are plain processes that talk TCP: no MPI. See README.md.
#include <conclave.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "tcp_mesh.h"

namespace {

constexpr conclave_status kMadeUpFailure = CONCLAVE_HOST_STATUS + 42;

struct Options {
    std::string model, prompt = "O Romeo, Romeo! ";
    std::vector<std::string> peers;
    int rank = -1;
    long tokens = 32, fail_at = -1, exit_at = -1;
    bool deterministic = false;
};

/// What the callbacks are given.
struct Ranks {
    TcpMesh& mesh;
    long fail_at, exit_at, calls = 0;

    int32_t failure() {
        if (calls == exit_at) std::_Exit(3);
        return calls++ == fail_at ? kMadeUpFailure : 0;
    }
};

// The library calls these from the thread that is inside a call on the communicator or its engine.
// An exception would come back as CONCLAVE_ERROR_CALLBACK; a status says more.
int32_t all_reduce(void* user, float* data, size_t count, conclave_reduction reduction) {
    Ranks& ranks = *static_cast<Ranks*>(user);
    if (const int32_t status = ranks.failure()) return status;
    return ranks.mesh.all_reduce(data, count, reduction == CONCLAVE_MAX);
}
int32_t all_gather(void* user, const void* send, void* recv, const size_t* bytes) {
    Ranks& ranks = *static_cast<Ranks*>(user);
    if (const int32_t status = ranks.failure()) return status;
    return ranks.mesh.all_gather(send, recv, bytes);
}
int32_t broadcast(void* user, void* data, size_t bytes, int32_t root) {
    Ranks& ranks = *static_cast<Ranks*>(user);
    if (const int32_t status = ranks.failure()) return status;
    return ranks.mesh.broadcast(data, bytes, root);
}
int32_t barrier(void* user) {
    Ranks& ranks = *static_cast<Ranks*>(user);
    if (const int32_t status = ranks.failure()) return status;
    return ranks.mesh.barrier();
}
void give_up(void* user, conclave_status status, const char* message) {
    static_cast<Ranks*>(user)->mesh.abort(status, message);
}

conclave_status generate(conclave_engine* engine, const Options& options) {
    conclave_sequence_config sequence;
    conclave_sequence_config_init(&sequence, sizeof sequence);
    sequence.text = options.prompt.c_str();
    sequence.max_tokens = options.tokens;
    uint64_t id = 0;
    if (const auto status = conclave_engine_add(engine, &sequence, &id)) return status;
    conclave_step_info info{};
    info.struct_size = sizeof info;
    do {
        if (const auto status = conclave_engine_step(engine, &info)) return status;
    } while (info.unfinished > 0);
    if (const auto status = conclave_engine_shutdown(engine)) return status;

    size_t bytes = 0;
    if (const auto status = conclave_engine_text(engine, id, nullptr, 0, &bytes)) return status;
    std::vector<char> text(bytes + 1);
    if (const auto status = conclave_engine_text(engine, id, text.data(), text.size(), &bytes))
        return status;
    std::printf("%s%s\n", options.prompt.c_str(), text.data());
    return CONCLAVE_OK;
}

conclave_status run(Ranks& ranks, const Options& options) {
    conclave_transport transport{};
    transport.struct_size = sizeof transport;
    transport.user = &ranks;
    transport.rank = ranks.mesh.rank();
    transport.size = ranks.mesh.size();
    transport.all_reduce = all_reduce;
    transport.all_gather = all_gather;
    transport.broadcast = broadcast;
    transport.barrier = barrier;
    transport.abort = give_up;
    conclave_comm* comm = nullptr;
    if (const auto status = conclave_comm_transport(&transport, &comm)) return status;

    conclave_engine_config config;
    conclave_engine_config_init(&config, sizeof config);
    config.model = options.model.c_str();
    config.deterministic = options.deterministic;
    conclave_engine* engine = nullptr;
    conclave_status status = conclave_engine_create(&config, comm, &engine);
    if (status == CONCLAVE_OK) {
        status =
            ranks.mesh.rank() == 0 ? generate(engine, options) : conclave_engine_follow(engine);
        conclave_engine_destroy(engine);  // does not change what conclave_last_error() says
    }
    conclave_comm_destroy(comm);
    return status;
}

int usage() {
    std::fprintf(stderr,
                 "usage: socket-transport MODEL --peers HOST:PORT,HOST:PORT,... --rank R\n"
                 "       [--prompt TEXT] [-n TOKENS] [--deterministic] [--fail-at CALL]\n"
                 "       [--exit-at CALL]\n"
                 "Start one process for each of the peers, each with its own rank from 0.\n"
                 "--fail-at: this rank's collective of that number, from 0, fails\n"
                 "--exit-at: at it this process ends, without a word to the others\n");
    return 2;
}

bool parse(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        if (name == "--deterministic") {
            options.deterministic = true;
            continue;
        }
        if (name[0] != '-') {
            options.model = name;
            continue;
        }
        if (++i == argc) return false;
        const std::string value = argv[i];
        if (name == "--peers") {
            for (size_t at = 0; at <= value.size();) {
                const size_t end = std::min(value.find(',', at), value.size());
                options.peers.push_back(value.substr(at, end - at));
                at = end + 1;
            }
        } else if (name == "--rank") {
            options.rank = std::atoi(value.c_str());
        } else if (name == "--prompt") {
            options.prompt = value;
        } else if (name == "-n") {
            options.tokens = std::atol(value.c_str());
        } else if (name == "--fail-at") {
            options.fail_at = std::atol(value.c_str());
        } else if (name == "--exit-at") {
            options.exit_at = std::atol(value.c_str());
        } else {
            return false;
        }
    }
    return !options.model.empty() && !options.peers.empty() && options.rank >= 0;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    if (!parse(argc, argv, options)) return usage();
    try {
        TcpMesh mesh(options.rank, options.peers);
        Ranks ranks{mesh, options.fail_at, options.exit_at};
        const conclave_status status = run(ranks, options);
        if (status == CONCLAVE_OK) return 0;
        std::fprintf(stderr, "rank %d: status %d (%s): %s\n", options.rank, status,
                     conclave_status_name(status), conclave_last_error());
        if (!mesh.text().empty())
            std::fprintf(stderr, "rank %d: sockets: %s\n", options.rank, mesh.text().c_str());
    } catch (const std::exception& e) {
        std::fprintf(stderr, "rank %d: %s\n", options.rank, e.what());
    }
    return 1;
}
