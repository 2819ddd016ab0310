#include <sys/sysinfo.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <fstream>
#include <thread>

#include <spdlog/fmt/fmt.h>

#include "runtime/api/conclave.hpp"
#include "runtime/api/conclave_predict.hpp"
#include "runtime/api/predict_measure.h"
#include "runtime/comm/tcp_probe.h"
#include "runtime/exec/topology.h"

namespace conclave {
namespace {

/// A sum of 2048 floats: what decoding one token sends.
constexpr size_t kMessageBytes = 8192;

void check(const PredictOptions& how) {
    const auto expect = [](bool ok, const std::string& what, const std::string& found) {
        if (!ok) throw Error(ErrorCode::kUsage, what).found(found);
    };
    expect(!how.ranks.empty(), "no number of ranks to predict for", "an empty list");
    for (const int n : how.ranks)
        expect(n >= 1 && n <= 65536, "ranks are from 1 to 65536", std::to_string(n));
    expect(!how.links.empty(), "no link to predict for", "an empty list");
    for (const LinkSpec& l : how.links) {
        expect(l.bytes_per_second > 0, "a link's bandwidth is above 0",
               fmt::format("{}", l.bytes_per_second));
        expect(l.latency_seconds >= 0 && l.burst_bytes >= 0,
               "a link's latency and burst are at least 0",
               fmt::format("{}, {}", l.latency_seconds, l.burst_bytes));
    }
    expect(how.ranks_per_host >= 1 && how.ranks_per_host <= 1024,
           "ranks of one host are from 1 to 1024", std::to_string(how.ranks_per_host));
    expect(how.hosts_here >= 1 && how.hosts_here <= 64, "hosts on this machine are from 1 to 64",
           std::to_string(how.hosts_here));
    expect(how.batch >= 1 && how.batch <= 65536, "sequences are from 1 to 65536",
           std::to_string(how.batch));
    expect(how.seconds > 0 && how.seconds <= 3600, "the time to measure is above 0, at most 3600 s",
           fmt::format("{}", how.seconds));
}

/// MemAvailable; what is free where that is not told.
uint64_t available_memory() {
    std::ifstream file("/proc/meminfo");
    for (std::string word; file >> word;)
        if (uint64_t kib = 0; word == "MemAvailable:" && file >> kib) return kib << 10;
    struct sysinfo info {};
    return sysinfo(&info) == 0 ? static_cast<uint64_t>(info.freeram) * info.mem_unit : 0;
}

int threads_of_rank(const EngineOptions& options, int sharing) {
    if (options.threads > 0) return options.threads;
    const exec::RankCpus cpus = exec::rank_cpus(exec::Topology::detect());
    return exec::default_threads(std::vector<exec::RankCpus>(static_cast<size_t>(sharing), cpus),
                                 0);
}

/// Of so many ranks at once.
double read_rate(const EngineOptions& options, int ranks) {
    auto comms = Comm::local(ranks);
    double rate = 0;
    std::vector<std::exception_ptr> failures(comms.size());
    std::vector<std::thread> others;
    for (size_t r = 1; r < comms.size(); ++r)
        others.emplace_back([&, r, own = std::move(comms[r])] {
            try {
                read_bandwidth(options, own);
            } catch (...) {
                failures[r] = std::current_exception();
            }
        });
    try {
        rate = read_bandwidth(options, std::move(comms[0]));
    } catch (...) {
        failures[0] = std::current_exception();
    }
    for (std::thread& t : others) t.join();
    for (const std::exception_ptr& f : failures)
        if (f) std::rethrow_exception(f);
    return rate;
}

/// What a message costs a CPU.
struct MessageCost {
    double hot = 0, cold = 0;  ///< seconds; cold: after a layer's weights have gone by
};

LinkPrediction over_link(const RanksPrediction& ranks, const std::vector<comm::Collective>& all,
                         const LinkSpec& spec, const MessageCost& message, int64_t batch) {
    const comm::Link link{spec.bytes_per_second, spec.latency_seconds, spec.burst_bytes,
                          message.hot, std::max(0.0, message.cold - message.hot)};
    comm::LinkUse use;
    for (const comm::Collective& c : all) use += comm::link_use(c, link);
    const comm::LinkSeconds seconds = comm::link_seconds(use, link, ranks.compute_seconds);
    LinkPrediction p;
    p.spec = spec;
    p.latency_seconds = seconds.latency;
    p.bandwidth_seconds = seconds.bandwidth;
    p.bytes = use.bytes;
    p.latencies = use.latencies;
    p.seconds_per_step = ranks.compute_seconds + seconds.sum();
    p.tokens_per_second = static_cast<double>(batch) / p.seconds_per_step;
    return p;
}

RanksPrediction predict_ranks(const SliceCase& slice, const PredictOptions& how,
                              double message_seconds, std::string& engine) {
    const SliceMeasurement m = measure_slice(slice);
    const double between =
        m.weight_bandwidth * m.step_seconds / static_cast<double>(m.collectives.size() + 1);
    const MessageCost message{
        message_seconds, comm::tcp_message_seconds(kMessageBytes, static_cast<size_t>(between))};
    RanksPrediction r;
    r.ranks = slice.ranks;
    r.hosts = (slice.ranks + how.ranks_per_host - 1) / how.ranks_per_host;
    r.ranks_at_once = slice.ranks_here;
    r.threads = slice.options.threads;
    r.layout = m.layout;
    r.layers = m.layers;
    r.layers_measured = m.layers_measured;
    r.weight_bytes = m.weight_bytes;
    r.weight_bandwidth = m.weight_bandwidth;
    r.compute_seconds = m.step_seconds;
    r.collectives = static_cast<int64_t>(m.collectives.size());
    for (const LinkSpec& spec : how.links)
        r.links.push_back(over_link(r, m.collectives, spec, message, how.batch));
    engine = m.engine;
    return r;
}

}  // namespace

Prediction predict(const EngineOptions& options, const PredictOptions& how) {
    check(how);
    const auto begin = std::chrono::steady_clock::now();
    const auto say = [&](const std::string& line) {
        if (how.progress) how.progress(line);
    };
    const double message_seconds = comm::tcp_message_seconds(kMessageBytes, 0);
    say(fmt::format("a further message costs {:.1f} us of a CPU (TCP over loopback)",
                    1e6 * message_seconds));
    Prediction out;
    for (const int n : how.ranks) {
        SliceCase slice;
        slice.options = options;
        slice.ranks = n;
        slice.ranks_per_host = how.ranks_per_host;
        slice.ranks_here = std::min(n, how.ranks_per_host * how.hosts_here);
        slice.options.threads = threads_of_rank(options, std::min(n, how.ranks_per_host));
        slice.batch = how.batch;
        slice.memory_bytes = std::min(how.memory_bytes, available_memory() / 2);
        slice.seconds = how.seconds;
        say(fmt::format("measuring {} of {} rank{}, {} thread{} each", slice.ranks_here, n,
                        n == 1 ? "" : "s", slice.options.threads,
                        slice.options.threads == 1 ? "" : "s"));
        RanksPrediction r = predict_ranks(slice, how, message_seconds, out.engine);
        r.read_bandwidth = read_rate(slice.options, slice.ranks_here);
        out.ranks.push_back(std::move(r));
    }
    out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return out;
}

}  // namespace conclave
