// Texts of links, and what collectives cost over them, against numbers worked out by hand.
#include <gtest/gtest.h>

#include "runtime/api/conclave_predict.hpp"
#include "runtime/base/error.h"
#include "runtime/comm/link_model.h"

namespace conclave {
namespace {

using comm::Collective;
using comm::Link;
using comm::LinkSeconds;
using comm::LinkUse;

TEST(ParseLink, Units) {
    const struct {
        const char* text;
        double bandwidth, latency, burst;
    } cases[] = {
        {"10Gbit,50us", 1.25e9, 50e-6, 0},
        {"1Gbit/s,0.2ms", 125e6, 0.2e-3, 0},
        {"125MB/s,100us", 125e6, 100e-6, 0},
        {"2.5GB,900ns", 2.5e9, 900e-9, 0},
        {"100Mbit,80us,256kB", 12.5e6, 80e-6, 256e3},
        {"64kbit,1s,0B", 8e3, 1, 0},
        {"8bit/s,0s,1MB", 1, 0, 1e6},
    };
    for (const auto& c : cases) {
        const LinkSpec link = parse_link(c.text);
        EXPECT_DOUBLE_EQ(link.bytes_per_second, c.bandwidth) << c.text;
        EXPECT_DOUBLE_EQ(link.latency_seconds, c.latency) << c.text;
        EXPECT_DOUBLE_EQ(link.burst_bytes, c.burst) << c.text;
        EXPECT_EQ(link.text, c.text);
    }
}

TEST(ParseLink, Refusals) {
    for (const char* text : {"",
                             ",",
                             "10Gbit",
                             "10Gbit,",
                             ",50us",
                             "10Gbit,50us,",
                             "10Gbit,50us,1kB,1kB",
                             "10,50us",
                             "10Gbit,50",
                             "10gbit,50us",
                             "10GBit,50us",
                             "0Gbit,50us",
                             "-1Gbit,50us",
                             "1e3Gbit,50us",
                             "nanGbit,50us",
                             "infGbit,50us",
                             "10 Gbit,50us",
                             "10Gbit, 50us",
                             "10Gbit,50us ",
                             "10Gbit,-1us",
                             "10Gbit,50us/s",
                             "10Gbit,5m",
                             "1Gbit,1us,1kbit",
                             "0x10Gbit,1us",
                             "+1Gbit,1us",
                             "Gbit,us",
                             "1Gbit/,1us",
                             "/s,1us",
                             "1..5Gbit,1us"})
        try {
            parse_link(text);
            ADD_FAILURE() << "taken: " << text;
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kUsage) << text;
            EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
        }
}

constexpr double kNear = 1e-12;

LinkUse use_of(Collective::Kind kind, int hosts, size_t bytes, size_t largest = 0,
               size_t smallest = 0, double burst = 0) {
    return comm::link_use({kind, hosts, bytes, largest, smallest}, Link{1, 1, burst});
}

void expect_use(const LinkUse& use, double latencies, double more, double bytes) {
    EXPECT_EQ(use.collectives, bytes > 0 ? 1 : 0);
    EXPECT_NEAR(use.latencies, latencies, kNear);
    EXPECT_NEAR(use.more_messages, more, kNear);
    EXPECT_NEAR(use.bytes, bytes, kNear);
    EXPECT_NEAR(use.excess_bytes, bytes, kNear);
}

TEST(LinkUse, ByHand) {
    using Kind = Collective::Kind;
    for (const Kind kind : {Kind::kBarrier, Kind::kBroadcast, Kind::kAllReduce, Kind::kAllGather})
        expect_use(use_of(kind, 1, 4096, 4096, 4096), 0, 0, 0);
    expect_use(use_of(Kind::kBarrier, 4, 0), 1, 2, 3);
    // All to all up to 64 KiB, or with two hosts.
    expect_use(use_of(Kind::kAllReduce, 2, 8192), 1, 0, 8192);
    expect_use(use_of(Kind::kAllReduce, 5, 8192), 1, 3, 4 * 8192);
    expect_use(use_of(Kind::kAllReduce, 3, 65536), 1, 1, 2 * 65536);
    // Two messages of a quarter to each of three others; below the eager limit, then beyond it.
    expect_use(use_of(Kind::kAllReduce, 4, 131072), 2, 4, 2 * 3 * 32768);
    expect_use(use_of(Kind::kAllReduce, 4, 1 << 20), 6, 4, 2 * 3 * (1 << 18));
    expect_use(use_of(Kind::kAllReduce, 2, 1 << 20), 3, 0, 1 << 20);
    // Trees: 2, 3, 4, 5 and 8 hosts.
    const int depth[] = {0, 0, 1, 1, 2, 2, 2, 2, 3}, sends[] = {0, 0, 1, 2, 2, 3, 3, 3, 3};
    for (int hosts = 2; hosts <= 8; ++hosts)
        expect_use(use_of(Kind::kBroadcast, hosts, 4096), depth[hosts], sends[hosts] - 1,
                   sends[hosts] * 4096);
    // The host with most sends it to two others; the one with least receives all else.
    expect_use(use_of(Kind::kAllGather, 3, 1000, 400, 200), 1, 1, 800);
    expect_use(use_of(Kind::kAllGather, 2, 1000, 1000, 0), 1, 0, 1000);
}

TEST(LinkSeconds, AddUpAndWaitForBursts) {
    const double wire_bytes = 1538.0 / 1448.0;  // for each of TCP's, in packets of 1500
    const LinkUse use{5, 10, 7, 5000, 5000};
    const LinkSeconds wire = comm::link_seconds(use, {1e6, 1e-3, 0}, 0.5);
    EXPECT_NEAR(wire.latency, 10e-3, kNear);
    EXPECT_NEAR(wire.bandwidth, 5e-3 * wire_bytes, kNear);
    EXPECT_NEAR(wire.sum(), wire.latency + wire.bandwidth, kNear);
    EXPECT_NEAR(comm::link_seconds(use, {1e6, 1e-3, 0, 2e-3}, 0.5).latency, 24e-3, kNear);
    EXPECT_NEAR(comm::link_seconds(use, {1e6, 1e-3, 0, 0, 3e-3}, 0.5).latency, 25e-3, kNear);
    // A burst that takes every message: the port has refilled while the ranks computed ...
    const LinkUse bursts{5, 10, 7, 5000, 0};
    EXPECT_NEAR(comm::link_seconds(bursts, {1e6, 1e-3, 1e6}, 0.5).bandwidth, 0, kNear);
    // ... unless they need more than it gives in that time: 5 s, 0.51 of them gone by.
    EXPECT_NEAR(comm::link_seconds(bursts, {1e3, 1e-3, 1e6}, 0.5).bandwidth, 5 * wire_bytes - 0.51,
                kNear);
    // A message larger than the burst waits for its rest.
    const LinkUse large = use_of(Collective::Kind::kAllReduce, 2, 300000, 0, 0, 100000);
    EXPECT_NEAR(large.excess_bytes, 200000, kNear);
    EXPECT_NEAR(comm::link_seconds(large, {1e6, 0, 1e5}, 10).bandwidth, 0.2 * wire_bytes, kNear);
}

}  // namespace
}  // namespace conclave
