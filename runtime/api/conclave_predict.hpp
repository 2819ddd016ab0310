// How fast a model would run on hosts like this one, joined by a given network: what one rank
// computes is measured here, what crosses the network is added from the link's figures.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/visibility.h"
#include "runtime/engine/types.h"

namespace conclave {

/// The way between two hosts, as `conclave doctor` measures it.
struct LinkSpec {
    double bytes_per_second = 0;  ///< of each host's port, each direction
    double latency_seconds = 0;   ///< one way, of a small message
    double burst_bytes = 0;       ///< that a rate limiter lets through at once; 0: a wire
    std::string text;             ///< as it was given
};

/// "10Gbit,50us": BANDWIDTH,LATENCY or BANDWIDTH,LATENCY,BURST. A bandwidth ends in bit, kbit,
/// Mbit, Gbit, B, kB, MB or GB (with or without /s), a latency in ns, us, ms or s, a burst in B,
/// kB, MB or GB; prefixes are powers of 1000. Throws kUsage.
CONCLAVE_API LinkSpec parse_link(std::string_view text);

struct PredictOptions {
    std::vector<int> ranks = {1};  ///< each is predicted
    std::vector<LinkSpec> links;   ///< at least one
    int ranks_per_host = 1;
    /// How many of the hosts are this machine: the parts of so many hosts are measured at the same
    /// time. 1 for a cluster; for hosts that are namespaces or containers of one machine, all.
    int hosts_here = 1;
    int64_t batch = 1;  ///< sequences that generate together
    /// At most so many bytes of weights, KV cache not counted, are held to measure; half of the
    /// memory that is free, where that is less. Of models that are larger, some layers are
    /// measured.
    uint64_t memory_bytes = uint64_t{4} << 30;
    double seconds = 2;  ///< of steps that are measured, about, for each number of ranks
    std::function<void(std::string_view)> progress;  ///< one line each
};

/// The share of one link in a token, on the critical path.
struct LinkPrediction {
    LinkSpec spec;
    double latency_seconds = 0, bandwidth_seconds = 0;
    double bytes = 0;      ///< through the busiest port
    double latencies = 0;  ///< messages that follow one another
    double seconds_per_step = 0, tokens_per_second = 0;
};

struct RanksPrediction {
    int ranks = 1, hosts = 1;
    int ranks_at_once = 1;  ///< that were measured together
    int threads = 1;        ///< of each rank
    std::string layout;
    int64_t layers = 0, layers_measured = 0;
    uint64_t weight_bytes = 0;          ///< that rank 0 held to measure
    int64_t collectives = 0;            ///< of one step
    double compute_seconds = 0;         ///< of one step: rank 0's, and its host's shared memory
    double weight_bandwidth = 0;        ///< weights read per second by rank 0 while it was measured
    double read_bandwidth = 0;          ///< of all ranks_at_once, doing nothing else
    std::vector<LinkPrediction> links;  ///< one for each of PredictOptions::links
};

struct Prediction {
    std::string engine;  ///< "int8 activations, avx512vnni, ..."; of the last
    double seconds = 0;  ///< that measuring took
    std::vector<RanksPrediction> ranks;
};

/// Decoding with a short context. For checkpoints, some layers' weights are read; with
/// load_format dummy, none are needed. Throws what Engine throws, kUsage for options that cannot
/// be, kResource where memory_bytes does not hold two layers.
CONCLAVE_API Prediction predict(const EngineOptions& options, const PredictOptions& how);
CONCLAVE_API std::string to_json(const Prediction& prediction);

}  // namespace conclave
