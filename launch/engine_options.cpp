#include "launch/engine_options.h"

#include <limits>

namespace conclave::launch {

EngineOptions engine_options(const Invocation& invocation, const Comm& comm, Console& console) {
    EngineOptions options = invocation.engine;
    // A command is never idle: rank 0 works between steps, or is lost.
    options.idle_deadline_seconds = options.deadline_seconds;
    const int rank = comm.rank();
    options.log = [&console, rank](LogLevel level, std::string_view message) {
        console.log(rank, level, message);
    };
    options.progress = [&console](const LoadProgress& p) { console.progress(p); };
    return options;
}

int64_t model_limit(const EngineOptions& options) {
    const int64_t limit = conclave::inspect(options, false).max_position_embeddings;
    return limit > 0 ? limit : std::numeric_limits<int64_t>::max() / 4;
}

}  // namespace conclave::launch
