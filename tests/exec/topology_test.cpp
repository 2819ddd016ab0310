#include "runtime/exec/topology.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "runtime/base/error.h"
#include "runtime/exec/cpu_mask.h"

namespace conclave::exec {
namespace {

using Cpus = std::vector<int>;

class SysfsDirectory : public testing::Test {
  protected:
    SysfsDirectory() {
        root_ = std::filesystem::temp_directory_path() /
                ("conclave_nodes_" + std::to_string(getpid()) + "_" +
                 testing::UnitTest::GetInstance()->current_test_info()->name());
        std::filesystem::create_directories(root_);
    }
    ~SysfsDirectory() override { std::filesystem::remove_all(root_); }
    void node(const std::string& name, const std::string& cpulist) {
        std::filesystem::create_directories(root_ / name);
        std::ofstream(root_ / name / "cpulist") << cpulist;
    }
    std::filesystem::path root_;
};

TEST(CpuList, ReadsNumbersAndRanges) {
    EXPECT_EQ(parse_cpulist("0\n"), (Cpus{0}));
    EXPECT_EQ(parse_cpulist("0-3,8,10-11\n"), (Cpus{0, 1, 2, 3, 8, 10, 11}));
    EXPECT_EQ(parse_cpulist("7,1-2,2"), (Cpus{1, 2, 7}));
    EXPECT_EQ(parse_cpulist("\n"), Cpus{});  // a node with memory only
    EXPECT_EQ(parse_cpulist(""), Cpus{});
}

TEST(CpuList, RefusesWhatIsNone) {
    for (const char* text : {"a", "1-", "-1", "3-1", "1,,2", "1,", ",1", "1 2", "0x1", "1-2-3",
                             "99999999999", "1-2000000000"}) {
        try {
            parse_cpulist(text);
            ADD_FAILURE() << text;
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kBadContent) << text;
            EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
        }
    }
}

TEST_F(SysfsDirectory, DividesTheAllowedCpusOverTheNodes) {
    node("node0", "0-3\n");
    node("node2", "4-7\n");
    node("node10", "8-11\n");
    node("node3", "\n");
    node("nodeX", "0-11\n");
    node("power", "0-11\n");
    const auto nodes = numa_nodes({1, 3, 8, 9}, root_);
    ASSERT_EQ(nodes.size(), 2u);
    EXPECT_EQ(nodes[0].id, 0);
    EXPECT_EQ(nodes[0].cpus, (Cpus{1, 3}));
    EXPECT_EQ(nodes[1].id, 10);
    EXPECT_EQ(nodes[1].cpus, (Cpus{8, 9}));
}

TEST_F(SysfsDirectory, KeepsCpusThatNoNodeNames) {
    node("node0", "nonsense");
    node("node1", "2-3\n");
    const auto nodes = numa_nodes({0, 2, 3, 9}, root_);
    ASSERT_EQ(nodes.size(), 1u);
    EXPECT_EQ(nodes[0].id, 1);
    EXPECT_EQ(nodes[0].cpus, (Cpus{0, 2, 3, 9}));
}

TEST_F(SysfsDirectory, AbsentMeansOneNode) {
    for (const auto& path : {root_, root_ / "none"}) {
        const auto nodes = numa_nodes({4, 6}, path);
        ASSERT_EQ(nodes.size(), 1u);
        EXPECT_EQ(nodes[0].cpus, (Cpus{4, 6}));
    }
}

TEST(CpuMask, RoundTripsAnyCpus) {
    std::mt19937 random(7);
    for (int round = 0; round < 50; ++round) {
        Cpus cpus;
        const int density = 1 + static_cast<int>(random() % 200);
        for (int c = 0; c < 3000; ++c)
            if (random() % density == 0) cpus.push_back(c);
        const CpuMask mask(cpus);
        EXPECT_EQ(mask.cpus(), cpus);
        EXPECT_EQ(mask.empty(), cpus.empty());
        EXPECT_TRUE(mask.within(mask));
        if (cpus.empty()) continue;
        cpus.pop_back();
        EXPECT_TRUE(CpuMask(cpus).within(mask));
        EXPECT_FALSE(mask.within(CpuMask(cpus)));
    }
}

TEST(Topology, DetectsThisMachine) {
    const CpuMask mask = CpuMask::of_thread(0);
    const Topology t = Topology::detect();
    EXPECT_EQ(CpuMask::of_thread(0).cpus(), mask.cpus());  // left as it was
    Cpus all;
    for (const NumaNode& n : t.nodes) {
        EXPECT_FALSE(n.cpus.empty());
        all.insert(all.end(), n.cpus.begin(), n.cpus.end());
    }
    std::sort(all.begin(), all.end());
    EXPECT_EQ(all, mask.cpus());
    EXPECT_EQ(t.cpus(), static_cast<int>(all.size()));
    EXPECT_GE(t.host_cpus, t.cpus());
    EXPECT_TRUE(t.bind);
}

TEST(Topology, HostCpusLookBeyondTheBinding) {
    const CpuMask before = CpuMask::of_thread(0);
    const Topology free = Topology::detect();
    ASSERT_TRUE(CpuMask({before.cpus().front()}).apply(0));
    const Topology bound = Topology::detect();
    before.apply(0);
    EXPECT_EQ(bound.cpus(), 1);
    EXPECT_EQ(bound.host_cpus, free.host_cpus);
}

TEST(Topology, Pretends) {
    const Topology t = Topology::pretend(2, 3);
    ASSERT_EQ(t.nodes.size(), 2u);
    EXPECT_EQ(t.nodes[1].cpus, (Cpus{3, 4, 5}));
    EXPECT_EQ(t.cpus(), 6);
    EXPECT_EQ(t.host_cpus, 6);
    EXPECT_FALSE(t.bind);
    EXPECT_NE(rank_cpus(t).mask_hash, rank_cpus(Topology::pretend(1, 5)).mask_hash);
    EXPECT_EQ(rank_cpus(t).mask_hash, rank_cpus(Topology::pretend(1, 6)).mask_hash);
    EXPECT_EQ(rank_cpus(t).cpus, 6);
}

TEST(Topology, LocalRanksStartAtNodesOfTheirOwn) {
    const Topology t = Topology::pretend(3, 2);
    const int first[] = {0, 1, 2, 0, 1};
    for (int r = 0; r < 5; ++r) {
        const Topology mine = t.for_local_rank(r);
        EXPECT_EQ(mine.nodes.front().id, first[r]);
        EXPECT_EQ(mine.nodes.size(), 3u);
        EXPECT_EQ(rank_cpus(mine).mask_hash, rank_cpus(t).mask_hash);
    }
}

struct BindingCase {
    std::vector<RankCpus> ranks;
    int self, host_cpus, threads;
    bool advice;
};

TEST(Binding, DefaultThreadsAndAdvice) {
    const std::vector<BindingCase> cases = {
        {{{1, 64}}, 0, 64, 64, false},                       // one rank, the whole host
        {{{1, 1}}, 0, 64, 1, true},                          // one rank, bound to a core
        {{{1, 2}}, 0, 64, 2, true},                          // the same with hyperthreads
        {{{1, 1}, {2, 1}}, 0, 64, 1, true},                  // two ranks, a core each
        {{{1, 1}, {2, 1}}, 1, 2, 1, false},                  // all that the host has
        {{{1, 2}, {1, 2}}, 0, 2, 1, false},                  // not bound, shared
        {{{1, 64}, {1, 64}, {1, 64}}, 2, 64, 21, false},     // not bound, uneven
        {{{1, 32}, {2, 32}}, 0, 64, 32, false},              // a socket each
        {{{1, 8}, {1, 8}}, 0, 64, 4, true},                  // both in one small set
        {{{1, 1}, {1, 1}, {1, 1}, {1, 1}}, 3, 1, 1, false},  // more ranks than CPUs
        {{{1, 60}, {2, 4}}, 0, 64, 60, false},               // each rank speaks for itself
        {{{1, 60}, {2, 4}}, 1, 64, 4, true},
        {{{1, 0}}, 0, 1, 1, false},  // never none
    };
    for (size_t i = 0; i < cases.size(); ++i) {
        const BindingCase& c = cases[i];
        EXPECT_EQ(default_threads(c.ranks, c.self), c.threads) << "case " << i;
        const std::string advice = binding_advice(c.ranks, c.self, c.host_cpus);
        EXPECT_EQ(!advice.empty(), c.advice) << "case " << i << ": " << advice;
        if (c.advice) {
            EXPECT_NE(advice.find("--bind-to none"), std::string::npos) << advice;
            EXPECT_EQ(advice.find('\n'), std::string::npos);
        }
    }
    EXPECT_EQ(binding_advice({{1, 1}, {2, 1}}, 0, 64),
              "bound to 1 CPU, 1 thread for this rank, where the host has 32 for each of its 2 "
              "ranks: Open MPI binds one or two ranks to one core each unless mpirun is given "
              "--bind-to none");
}

}  // namespace
}  // namespace conclave::exec
