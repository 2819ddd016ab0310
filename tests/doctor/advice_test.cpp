// advise() against pretended facts: it says what is so, and nothing else.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "runtime/api/conclave_doctor.hpp"
#include "runtime/api/doctor_links.h"

namespace conclave {
namespace {

std::vector<int> span(int first, int count) {
    std::vector<int> cpus(count);
    std::iota(cpus.begin(), cpus.end(), first);
    return cpus;
}

/// A healthy job: `hosts` hosts of 16 CPUs on 2 NUMA nodes, one bound rank on each node.
DoctorReport healthy(int hosts) {
    DoctorReport report;
    report.backend = "mpi";
    report.deadline_seconds = 300;
    for (int r = 0; r < 2 * hosts; ++r) {
        DoctorRank rank;
        rank.rank = r;
        rank.local_rank = r % 2;
        rank.host = "node" + std::to_string(r / 2);
        rank.cpus = span(8 * (r % 2), 8);
        rank.host_cpus = 16;
        rank.numa_nodes = {r % 2};
        rank.threads = 8;
        rank.isa = rank.features = "avx2";
        rank.library = "Open MPI 4.1.4, MPI_THREAD_FUNNELED";
        rank.read_alone = 20e9;
        rank.read_together = 18e9;
        rank.shm = rank.shm_free = uint64_t{8} << 30;
        rank.networks = {"eth0 10.0.0." + std::to_string(r / 2 + 1) + "/24"};
        rank.keepalive = true;
        report.ranks.push_back(rank);
    }
    for (int a = 0; a < 2 * hosts; ++a)
        for (int b = a + 1; b < 2 * hosts; ++b)
            report.pairs.push_back({a, b, a / 2 == b / 2 ? 0.5 : 20, a / 2 == b / 2 ? 8e9 : 2.8e9});
    return report;
}

std::string text_of(const std::vector<DoctorAdvice>& all) {
    std::string text;
    for (const DoctorAdvice& a : all) text += a.topic + ": " + a.reason + " -> " + a.action + "\n";
    return text;
}

/// Exactly one piece of advice, about `topic`, which names all of `words`.
void expect_one(const DoctorReport& report, const std::string& topic,
                const std::vector<std::string>& words) {
    const std::vector<DoctorAdvice> all = advise(report);
    const std::string text = text_of(all);
    ASSERT_EQ(all.size(), 1u) << text;
    EXPECT_EQ(all[0].topic, topic) << text;
    EXPECT_FALSE(all[0].action.empty());
    for (const std::string& word : words)
        EXPECT_NE(text.find(word), std::string::npos) << word << "\n" << text;
}

TEST(DoctorAdvice, NoneWhereAllIsWell) {
    for (const int hosts : {1, 2, 5}) EXPECT_EQ(text_of(advise(healthy(hosts))), "");
    DoctorReport alone = healthy(1);
    alone.ranks.resize(1);
    alone.pairs.clear();
    alone.backend = "self";
    alone.ranks[0].library.clear();
    EXPECT_EQ(text_of(advise(alone)), "");
    EXPECT_TRUE(advise({}).empty());
}

TEST(DoctorAdvice, MoreRanksThanCpus) {
    DoctorReport report = healthy(1);
    for (DoctorRank& r : report.ranks) r.cpus = {0}, r.host_cpus = 1, r.threads = 1;
    expect_one(report, "too many ranks", {"node0", "1 CPUs for 2 ranks", "slots=1"});
}

TEST(DoctorAdvice, MoreThreadsThanCpus) {
    DoctorReport report = healthy(2);
    report.ranks[2].threads = 9;
    expect_one(report, "too many threads", {"node1", "17 threads on 16 CPUs", "--threads 8"});
}

TEST(DoctorAdvice, RanksShareWhileOthersAreFree) {
    DoctorReport report = healthy(1);
    for (DoctorRank& r : report.ranks) r.cpus = span(0, 8), r.threads = 4, r.numa_nodes = {0};
    expect_one(report, "binding",
               {"share CPUs while 8 of its 16", "mpirun -n 2 --map-by ppr:2:node:PE=8"});
    for (DoctorRank& r : report.ranks) r.threads_per_core = 2;
    expect_one(report, "binding", {"PE=4"});
}

TEST(DoctorAdvice, BoundTooTightly) {
    DoctorReport report = healthy(1);
    report.ranks.resize(1);
    report.pairs.clear();
    report.ranks[0].cpus = {3};
    report.ranks[0].threads = 1;
    expect_one(report, "binding", {"15 of 16 CPUs are used by no rank", "--bind-to none"});
}

TEST(DoctorAdvice, NotBound) {
    DoctorReport report = healthy(1);
    for (DoctorRank& r : report.ranks) r.cpus = span(0, 16);
    expect_one(report, "binding", {"2 ranks of host node0 are not bound", "ppr:2:node:PE=8"});
}

TEST(DoctorAdvice, ThreadsCrossNodes) {
    DoctorReport report = healthy(1);
    report.ranks.resize(1);
    report.pairs.clear();
    report.ranks[0].cpus = span(0, 16);
    report.ranks[0].threads = 16;
    report.ranks[0].numa_nodes = {0, 1};
    expect_one(report, "NUMA", {"rank 0", "2 NUMA nodes", "mpirun -n 2 --map-by ppr:1:numa"});
    report.ranks[0].threads = 1;
    EXPECT_EQ(text_of(advise(report)), "");
}

TEST(DoctorAdvice, SmallPages) {
    DoctorReport report = healthy(2);
    for (const int r : {2, 3}) report.ranks[r].small_pages = true;
    for (const int r : {2, 3}) report.ranks[r].transparent_huge_pages = "never";
    expect_one(
        report, "huge pages",
        {"node1", "ranks 2 and 3", "\"never\"", "transparent_hugepage/enabled", "vm.nr_hugepages"});
}

TEST(DoctorAdvice, LittleSharedMemory) {
    DoctorReport report = healthy(1);
    for (DoctorRank& r : report.ranks) r.shm_free = 20 << 20;
    expect_one(report, "shared memory", {"20 MiB", "--shm-size"});
}

TEST(DoctorAdvice, InstructionSetsDiffer) {
    DoctorReport report = healthy(2);
    report.ranks[0].beyond = report.ranks[1].beyond = "avx512";
    expect_one(report, "instruction sets",
               {"ranks 0 and 1 could use avx512", "ranks 2 and 3 cannot", "all use avx2"});
    report = healthy(1);
    report.ranks[1].switched_off = "avx512";
    expect_one(report, "instruction sets", {"rank 1", "avx512", "unset CONCLAVE_ISA"});
}

TEST(DoctorAdvice, Mpi) {
    DoctorReport report = healthy(1);
    for (DoctorRank& r : report.ranks) r.library = "Open MPI 4.1.4, MPI_THREAD_SINGLE";
    expect_one(report, "MPI", {"MPI_THREAD_SINGLE", "ranks 0 and 1", "MPI_THREAD_FUNNELED"});
    report = healthy(2);
    report.ranks[3].library = "Open MPI 4.1.6, MPI_THREAD_FUNNELED";
    expect_one(report, "MPI", {"different", "4.1.4", "4.1.6"});
    report = healthy(1);
    report.ranks.resize(1);
    report.pairs.clear();
    report.ranks[0].cpus = span(0, 16);
    report.ranks[0].threads = 16;
    report.ranks[0].launched = 4;
    expect_one(report, "launcher", {"started 4", "each is alone"});
}

TEST(DoctorAdvice, LostHosts) {
    DoctorReport report = healthy(2);
    report.deadline_seconds = 0;
    expect_one(report, "deadline", {"for ever", "--deadline"});
    report = healthy(2);
    for (DoctorRank& r : report.ranks) r.keepalive = false;
    expect_one(report, "lost hosts", {"oob_tcp_keepalive_time"});
    for (DoctorRank& r : report.ranks) r.library = "Open MPI 5.0.1, MPI_THREAD_FUNNELED";
    EXPECT_EQ(text_of(advise(report)), "");
}

TEST(DoctorAdvice, SeveralNetworks) {
    DoctorReport report = healthy(2);
    for (DoctorRank& r : report.ranks) r.networks.push_back("docker0 172.17.0.1/16");
    expect_one(report, "networks", {"node0", "docker0", "btl_tcp_if_include 10.0.0.0/24"});
    for (DoctorRank& r : report.ranks) r.tcp_networks = "btl_tcp_if_include eth0";
    EXPECT_EQ(text_of(advise(report)), "");
    report = healthy(1);
    for (DoctorRank& r : report.ranks) r.networks.push_back("docker0 172.17.0.1/16");
    EXPECT_EQ(text_of(advise(report)), "");
}

/// Sets all pairs between two hosts of healthy().
void set_link(DoctorReport& report, int x, int y, double latency, double bandwidth) {
    for (DoctorPair& p : report.pairs)
        if (p.a / 2 == x && p.b / 2 == y) p.latency_us = latency, p.bandwidth = bandwidth;
}

TEST(DoctorAdvice, SlowLinks) {
    DoctorReport report = healthy(2);
    set_link(report, 0, 1, 30, 0.0125e9);
    expect_one(report, "links", {"0.10 Gbit/s between hosts node0 and node1"});
    report = healthy(3);
    set_link(report, 1, 2, 30, 0.12e9);
    expect_one(report, "links", {"0.96 Gbit/s between hosts node1 and node2", "22.40", "ethtool"});
    report = healthy(2);
    set_link(report, 0, 1, 250, 2.8e9);
    expect_one(report, "links", {"250 us", "24.0 ms"});
}

TEST(DoctorAdvice, SlowHost) {
    DoctorReport report = healthy(3);
    for (const int r : {4, 5}) report.ranks[r].read_together = 5e9;
    expect_one(report, "slow host", {"node2", "10.0 GB/s", "36.0"});
}

/// Each pair once, no rank twice in a round.
void check_plan(const PairPlan& plan) {
    std::vector<std::pair<int, int>> all;
    for (const auto& round : plan.rounds) {
        std::vector<int> busy;
        for (const auto& [a, b] : round) {
            EXPECT_LT(a, b);
            busy.push_back(a), busy.push_back(b);
            all.emplace_back(a, b);
        }
        std::sort(busy.begin(), busy.end());
        EXPECT_EQ(std::adjacent_find(busy.begin(), busy.end()), busy.end());
    }
    std::sort(all.begin(), all.end());
    EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end());
    EXPECT_EQ(plan.pairs(), all.size());
}

TEST(DoctorPairs, AllOfFewRanks) {
    for (size_t n = 1; n <= 16; ++n) {
        const PairPlan plan = plan_pairs(std::vector<std::string>(n, "h"));
        check_plan(plan);
        EXPECT_EQ(plan.pairs(), n * (n - 1) / 2);
        EXPECT_EQ(plan.left_out, "");
    }
}

TEST(DoctorPairs, SomeOfMany) {
    std::vector<std::string> hosts;
    for (int r = 0; r < 60; ++r) hosts.push_back("h" + std::to_string(r % 20));
    const PairPlan plan = plan_pairs(hosts);
    check_plan(plan);
    EXPECT_EQ(plan.pairs(), 16u * 15 / 2 + 16);
    EXPECT_NE(plan.left_out.find("60 ranks"), std::string::npos);
}

}  // namespace
}  // namespace conclave
