#include <spdlog/fmt/fmt.h>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/format.h"
#include "runtime/api/conclave_predict.hpp"

namespace conclave::launch {
namespace {

double of_read(const RanksPrediction& r) {
    return r.weight_bandwidth * r.ranks_at_once / r.read_bandwidth;
}

/// What was measured: one line for each number of ranks.
std::string measured_table(const Prediction& p) {
    std::string out =
        fmt::format("{:>5}  {:>5}  {:>7}  {:>8}  {:>7}  {:>10}  {:>6}  {:>7}\n", "ranks", "hosts",
                    "threads", "together", "layers", "compute ms", "GB/s", "of read");
    for (const RanksPrediction& r : p.ranks)
        out += fmt::format("{:>5}  {:>5}  {:>7}  {:>8}  {:>7}  {:>10.2f}  {:>6.1f}  {:>5.0f} %\n",
                           r.ranks, r.hosts, r.threads, r.ranks_at_once,
                           fmt::format("{}/{}", r.layers_measured, r.layers),
                           1e3 * r.compute_seconds, r.weight_bandwidth / 1e9, 100 * of_read(r));
    return out;
}

std::string link_table(const Prediction& p, size_t link) {
    std::string out = fmt::format("{:>5}  {:>8}  {:>9}  {:>10}  {:>12}  {:>10}  {:>8}  {:>8}\n",
                                  "ranks", "messages", "sent", "latency ms", "bandwidth ms",
                                  "ms a step", "tokens/s", "speed-up");
    const double one = p.ranks.front().links[link].tokens_per_second;
    for (const RanksPrediction& r : p.ranks) {
        const LinkPrediction& l = r.links[link];
        out += fmt::format(
            "{:>5}  {:>8.0f}  {:>9}  {:>10.2f}  {:>12.2f}  {:>10.2f}  {:>8.2f}  {:>7.2f}x\n",
            r.ranks, l.latencies, human_bytes(l.bytes), 1e3 * l.latency_seconds,
            1e3 * l.bandwidth_seconds, 1e3 * l.seconds_per_step, l.tokens_per_second,
            l.tokens_per_second / one);
    }
    return out;
}

}  // namespace

int predict(const Invocation& invocation) {
    Console console(invocation.verbose);
    EngineOptions options = invocation.engine;
    options.log = [&](LogLevel level, std::string_view message) {
        if (level >= LogLevel::kWarning) console.log(0, level, message);
    };
    PredictOptions how = invocation.predict;
    how.progress = [&](std::string_view line) { console.line(line); };
    const Prediction p = conclave::predict(options, how);
    console.line("measured for " + human_duration(p.seconds));
    if (invocation.json) {
        print(to_json(p) + "\n");
        return 0;
    }
    std::string out = "Measured here, " + p.engine + "\n" + measured_table(p);
    for (size_t i = 0; i < how.links.size(); ++i)
        out += fmt::format("\nPredicted over {}, {} generated together, one step\n",
                           terminal_safe(how.links[i].text), how.batch) +
               link_table(p, i);
    print(out);
    return 0;
}

}  // namespace conclave::launch
