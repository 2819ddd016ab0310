#include "runtime/engine/plugins/extensions.h"

namespace conclave::engine {

const Extensions& Extensions::built_in() {
    static const Extensions extensions;
    return extensions;
}

const Extensions& Extensions::of(const EngineOptions& options) {
    return options.extensions ? *options.extensions : built_in();
}

std::string Extensions::plugin_list() const {
    std::string list;
    for (const std::string& p : plugins) list += (list.empty() ? "" : ", ") + p;
    return list.empty() ? "none" : list;
}

void expect_same_plugins(comm::Communicator& comm, const Extensions& extensions) {
    const std::string mine = extensions.plugin_list();
    uint64_t bytes = mine.size();
    comm.broadcast(&bytes, sizeof bytes, 0);
    std::string first = mine;
    first.resize(bytes);
    comm.broadcast(first.data(), bytes, 0);
    comm::together(comm, [&] {
        if (mine != first)
            throw Error(ErrorCode::kUsage, "ranks have loaded different plugins")
                .rank(comm.rank())
                .expected(first + " (rank 0)")
                .found(mine);
    });
}

}  // namespace conclave::engine
