// What a collective costs between hosts, by the way leader_link sends it: a pure function of sizes.
// What happens inside a host is not here; that is measured.
#pragma once
#include <cstddef>
#include <span>

namespace conclave::comm {

/// The way from one host to another: TCP over Ethernet.
struct Link {
    double bytes_per_second = 0;  ///< of one host's port, each direction; headers included
    double latency_seconds = 0;   ///< one way, of a small message, from call to call
    /// What a port lets through at once after a pause; 0 for a wire. For rate limiters: tc's tbf.
    double burst_bytes = 0;
    /// Sending and receiving one message keeps a CPU busy for so long; the first of an exchange is
    /// in the latency.
    double message_seconds = 0;
    /// So much more does a collective's first message cost than one of a ping-pong, because the
    /// computing before it has driven TCP's code and data from the caches.
    double cold_seconds = 0;
};

/// One collective of `hosts` hosts.
struct Collective {
    enum class Kind { kBarrier, kBroadcast, kAllReduce, kAllGather };
    Kind kind = Kind::kBarrier;
    int hosts = 1;
    size_t bytes = 0;         ///< the whole: of all pieces, where they are gathered
    size_t largest_host = 0;  ///< kAllGather: bytes that one host contributes, at most and at least
    size_t smallest_host = 0;
};

struct LinkUse {
    double collectives = 0;    ///< that cross the link
    double latencies = 0;      ///< messages that follow one another
    double more_messages = 0;  ///< that one host sends and receives beside those
    double bytes = 0;          ///< through the busiest port
    double excess_bytes = 0;   ///< what no burst can take, of each collective
    LinkUse& operator+=(const LinkUse& other);
    LinkUse operator*(double times) const;
};

LinkUse link_use(const Collective& collective, const Link& link);

struct LinkSeconds {
    double latency = 0, bandwidth = 0;
    double sum() const { return latency + bandwidth; }
};

/// What `use` adds to a step that computes for `compute_seconds`. A port with a burst refills it
/// while the ranks compute, so that only bytes beyond rate x time make them wait.
LinkSeconds link_seconds(const LinkUse& use, const Link& link, double compute_seconds);

}  // namespace conclave::comm
