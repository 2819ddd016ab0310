#include "runtime/comm/link_model.h"

#include <algorithm>
#include <bit>

namespace conclave::comm {
namespace {

/// leader_link's kDirectBytes.
constexpr size_t kDirectBytes = 64 * 1024;
/// From here Open MPI's TCP transport asks the receiver first: a message there and one back.
constexpr size_t kEagerBytes = 64 * 1024;

/// Of a packet's 1538 bytes on an Ethernet wire TCP carries 1448.
constexpr double kPayload = 1448.0 / 1538.0;

/// Every host sends `sent` bytes to `others` hosts in messages of `message`, and receives
/// `received`.
LinkUse exchange(unsigned others, double sent, double received, double message) {
    return {1, message > static_cast<double>(kEagerBytes) ? 3.0 : 1.0, others - 1.0,
            std::max(sent, received), 0};
}

/// A binomial tree: the last host hears after as many messages as ones are in its number, and as
/// many were sent before it, each through a port that sends one after the other.
LinkUse broadcast(unsigned hosts, double bytes) {
    int depth = 0;
    for (unsigned h = 1; h < hosts; ++h) depth = std::max(depth, std::popcount(h));
    const double sends = std::bit_width(hosts - 1);
    return {1, exchange(1, 0, 0, bytes).latencies * depth, sends - 1, sends * bytes, 0};
}

LinkUse all_reduce(unsigned hosts, double bytes) {
    const double others = hosts - 1;
    if (hosts == 2 || bytes <= static_cast<double>(kDirectBytes))
        return exchange(hosts - 1, others * bytes, others * bytes, bytes);
    const double part = bytes / hosts;
    LinkUse use = exchange(hosts - 1, others * part, others * part, part) * 2;
    use.collectives = 1;  // nothing is computed between the two
    return use;
}

LinkUse all_gather(const Collective& c) {
    const double sent = static_cast<double>(c.largest_host) * (c.hosts - 1);
    const double received = static_cast<double>(c.bytes - c.smallest_host);
    return exchange(static_cast<unsigned>(c.hosts) - 1, sent, received,
                    static_cast<double>(c.largest_host));
}

}  // namespace

LinkUse& LinkUse::operator+=(const LinkUse& other) {
    collectives += other.collectives;
    latencies += other.latencies;
    more_messages += other.more_messages;
    bytes += other.bytes;
    excess_bytes += other.excess_bytes;
    return *this;
}

LinkUse LinkUse::operator*(double times) const {
    return {collectives * times, latencies * times, more_messages * times, bytes * times,
            excess_bytes * times};
}

LinkUse link_use(const Collective& c, const Link& link) {
    if (c.hosts < 2 || (c.bytes == 0 && c.kind != Collective::Kind::kBarrier)) return {};
    const auto hosts = static_cast<unsigned>(c.hosts);
    LinkUse use;
    switch (c.kind) {
        case Collective::Kind::kBarrier:
            use = exchange(hosts - 1, hosts - 1, hosts - 1, 1);
            break;
        case Collective::Kind::kBroadcast:
            use = broadcast(hosts, static_cast<double>(c.bytes));
            break;
        case Collective::Kind::kAllReduce:
            use = all_reduce(hosts, static_cast<double>(c.bytes));
            break;
        case Collective::Kind::kAllGather:
            use = all_gather(c);
            break;
    }
    use.excess_bytes = std::max(0.0, use.bytes - link.burst_bytes);
    return use;
}

LinkSeconds link_seconds(const LinkUse& use, const Link& link, double compute_seconds) {
    LinkSeconds s;
    s.latency = use.latencies * link.latency_seconds + use.more_messages * link.message_seconds +
                use.collectives * link.cold_seconds;
    const double spent = compute_seconds + s.latency;
    const double rate = link.bytes_per_second * kPayload;
    s.bandwidth = std::max(use.excess_bytes / rate, use.bytes / rate - spent);
    return s;
}

}  // namespace conclave::comm
