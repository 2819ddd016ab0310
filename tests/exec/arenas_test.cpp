#include "runtime/exec/arenas.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>

#include "runtime/base/error.h"
#include "runtime/exec/cpu_mask.h"

namespace conclave::exec {
namespace {

struct Shape {
    int nodes, cpus_per_node, threads;
};
const Shape kShapes[] = {{1, 1, 1}, {1, 2, 2}, {1, 2, 4}, {2, 1, 1}, {2, 1, 2},
                         {2, 2, 3}, {2, 2, 4}, {3, 1, 3}, {2, 2, 9}};

class ArenasOf : public testing::TestWithParam<Shape> {
  protected:
    const Shape shape_ = GetParam();
    Arenas arenas_{Topology::pretend(shape_.nodes, shape_.cpus_per_node), shape_.threads};

    /// Counts of a random job, each zero, small or large.
    std::vector<int64_t> random_tasks(std::mt19937& random) const {
        std::vector<int64_t> tasks(arenas_.nodes());
        for (int64_t& n : tasks) {
            const unsigned kind = random() % 4;
            n = kind == 0 ? 0 : static_cast<int64_t>(random() % (kind == 1 ? 4 : 700));
        }
        return tasks;
    }
};

using Counts = std::vector<std::vector<std::atomic<int>>>;

Counts zero_counts(const std::vector<int64_t>& tasks) {
    Counts counts;
    for (const int64_t n : tasks) counts.emplace_back(static_cast<size_t>(n));
    return counts;
}

void expect_all_once(const Counts& counts) {
    for (size_t n = 0; n < counts.size(); ++n)
        for (size_t i = 0; i < counts[n].size(); ++i)
            ASSERT_EQ(counts[n][i].load(), 1) << "node " << n << " task " << i;
}

TEST_P(ArenasOf, ThreadsAreDividedOverTheNodes) {
    EXPECT_EQ(arenas_.nodes(), std::min(shape_.nodes, shape_.threads));
    EXPECT_EQ(arenas_.threads(), shape_.threads);
    int sum = 0, least = 1 << 30, most = 0;
    for (int n = 0; n < arenas_.nodes(); ++n) {
        sum += arenas_.threads(n);
        least = std::min(least, arenas_.threads(n));
        most = std::max(most, arenas_.threads(n));
    }
    EXPECT_EQ(sum, shape_.threads);
    EXPECT_GE(least, 1);
    EXPECT_LE(most - least, 1);
}

TEST_P(ArenasOf, RunsEveryTaskOfEveryNodeOnce) {
    std::mt19937 random(1);
    for (int round = 0; round < 60; ++round) {
        const auto tasks = random_tasks(random);
        Counts counts = zero_counts(tasks);
        arenas_.parallel_for(tasks, [&](int n, int64_t i) { ++counts.at(n).at(i); });
        expect_all_once(counts);
    }
}

TEST_P(ArenasOf, RunsEveryFreeTaskOnce) {
    std::mt19937 random(2);
    for (int round = 0; round < 60; ++round) {
        const std::vector<int64_t> tasks{static_cast<int64_t>(random() % 900)};
        Counts counts = zero_counts(tasks);
        arenas_.parallel_for(tasks[0], [&](int64_t i) { ++counts[0].at(i); });
        expect_all_once(counts);
    }
    arenas_.parallel_for(int64_t{0}, [](int64_t) { ADD_FAILURE(); });
}

TEST_P(ArenasOf, ResultsAreVisibleToTheCallerWithoutAtomics) {
    std::mt19937 random(3);
    for (int round = 0; round < 40; ++round) {
        const auto tasks = random_tasks(random);
        std::vector<std::vector<int64_t>> out;
        for (const int64_t n : tasks) out.emplace_back(n, -1);
        arenas_.parallel_for(tasks, [&](int n, int64_t i) { out[n][i] = i * 3 + n; });
        for (size_t n = 0; n < out.size(); ++n)
            for (int64_t i = 0; i < tasks[n]; ++i)
                ASSERT_EQ(out[n][i], i * 3 + static_cast<int64_t>(n));
    }
}

TEST_P(ArenasOf, TheCallerWorksForNodeZeroOnly) {
    std::vector<int64_t> tasks(arenas_.nodes(), 400);
    const auto caller = std::this_thread::get_id();
    std::atomic<int> at_home = 0, away = 0;
    arenas_.parallel_for(tasks, [&](int n, int64_t) {
        if (std::this_thread::get_id() == caller) ++(n == 0 ? at_home : away);
    });
    EXPECT_GT(at_home.load(), 0);
    EXPECT_EQ(away.load(), 0);
}

TEST_P(ArenasOf, NoMoreThreadsAtOnceThanANodeHas) {
    std::vector<std::atomic<int>> now(arenas_.nodes());
    std::atomic<int> too_many = 0;
    const std::vector<int64_t> tasks(arenas_.nodes(), 300);
    for (int round = 0; round < 10; ++round)
        arenas_.parallel_for(tasks, [&](int n, int64_t) {
            if (++now[n] > arenas_.threads(n)) ++too_many;
            std::this_thread::yield();
            --now[n];
        });
    EXPECT_EQ(too_many.load(), 0);
}

TEST_P(ArenasOf, AnExceptionWaitsForAllAndLeavesTheArenasUsable) {
    std::mt19937 random(4);
    for (int round = 0; round < 30; ++round) {
        auto tasks = random_tasks(random);
        const int bad_node = static_cast<int>(random() % tasks.size());
        tasks[bad_node] += 1;
        const auto bad = static_cast<int64_t>(random() % tasks[bad_node]);
        Counts counts = zero_counts(tasks);
        try {
            arenas_.parallel_for(tasks, [&](int n, int64_t i) {
                ++counts[n][i];
                if (n == bad_node && i == bad)
                    throw std::runtime_error("task " + std::to_string(i));
            });
            ADD_FAILURE() << "nothing was thrown";
        } catch (const std::runtime_error& e) {
            EXPECT_EQ(e.what(), "task " + std::to_string(bad));
        }
        expect_all_once(counts);
    }
    std::atomic<int> ran = 0;
    EXPECT_THROW(arenas_.parallel_for(int64_t{50},
                                      [&](int64_t) {
                                          ++ran;
                                          throw Error(ErrorCode::kCancelled, "all of them");
                                      }),
                 Error);
    EXPECT_EQ(ran.load(), 50);
}

TEST_P(ArenasOf, ScratchIsPrivateAlignedAndGrows) {
    std::mt19937 random(5);
    std::vector<size_t> sizes(200);
    for (size_t& s : sizes) s = 1 + random() % 100000;
    std::atomic<int> wrong = 0;
    arenas_.parallel_for(static_cast<int64_t>(sizes.size()), [&](int64_t i) {
        std::byte* p = arenas_.scratch(sizes[i]);
        if (reinterpret_cast<uintptr_t>(p) % 64 != 0) ++wrong;
        const auto mark = static_cast<std::byte>(i);
        std::memset(p, static_cast<int>(mark), sizes[i]);
        std::this_thread::yield();
        if (std::any_of(p, p + sizes[i], [&](std::byte b) { return b != mark; })) ++wrong;
    });
    EXPECT_EQ(wrong.load(), 0);
    std::byte* large = arenas_.scratch(300000);
    EXPECT_EQ(arenas_.scratch(1), large);  // kept, not shrunk
}

INSTANTIATE_TEST_SUITE_P(Shapes, ArenasOf, testing::ValuesIn(kShapes), [](const auto& info) {
    return "n" + std::to_string(info.param.nodes) + "c" + std::to_string(info.param.cpus_per_node) +
           "t" + std::to_string(info.param.threads);
});

TEST(Arenas, ThreadsFollowTheCpusOfUnequalNodes) {
    Topology t = Topology::pretend(3, 1);
    t.nodes[1].cpus = {1, 2, 3, 4, 5, 6};
    const auto threads = [&](int total) {
        const Arenas a(t, total);
        std::vector<int> each;
        for (int n = 0; n < a.nodes(); ++n) each.push_back(a.threads(n));
        return each;
    };
    EXPECT_EQ(threads(1), (std::vector<int>{1}));
    EXPECT_EQ(threads(2), (std::vector<int>{1, 1}));
    EXPECT_EQ(threads(5), (std::vector<int>{1, 3, 1}));
    EXPECT_EQ(threads(8), (std::vector<int>{1, 6, 1}));
    EXPECT_EQ(threads(16), (std::vector<int>{2, 12, 2}));
}

TEST(Arenas, OneThreadIsAPlainLoopOnTheCaller) {
    Arenas arenas(Topology::pretend(1, 8), 1);
    const auto caller = std::this_thread::get_id();
    std::vector<int64_t> order;
    arenas.parallel_for(int64_t{100}, [&](int64_t i) {
        ASSERT_EQ(std::this_thread::get_id(), caller);
        order.push_back(i);
    });
    std::vector<int64_t> expected(100);
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(order, expected);
}

TEST(Arenas, ManyOfThemServeManyCallersAtOnce) {
    std::vector<std::thread> ranks;
    std::atomic<int64_t> sum = 0;
    for (int r = 0; r < 6; ++r)
        ranks.emplace_back([&, r] {
            Arenas arenas(Topology::pretend(1 + r % 2, 2), 1 + r % 4);
            std::vector<int64_t> tasks(arenas.nodes(), 20);
            for (int round = 0; round < 50; ++round) {
                std::atomic<int64_t> mine = 0;
                arenas.parallel_for(tasks, [&](int, int64_t i) { mine += i; });
                EXPECT_EQ(mine.load(), 190 * arenas.nodes());
                sum += mine;
            }
        });
    for (std::thread& t : ranks) t.join();
    EXPECT_EQ(sum.load(), 190 * 50 * (1 + 2 + 1 + 2 + 1 + 2));
}

TEST(Arenas, RefuseNonsense) {
    EXPECT_THROW(Arenas(Topology::pretend(1, 1), 0), Error);
    EXPECT_THROW(Arenas(Topology{}, 1), Error);
    Arenas arenas(Topology::pretend(2, 1), 2);
    const std::vector<int64_t> one(1, 5);
    EXPECT_THROW(arenas.parallel_for(one, [](int, int64_t) {}), Error);
    try {
        arenas.scratch(SIZE_MAX);
        ADD_FAILURE();
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kResource);
        EXPECT_NE(std::string(e.what()).find("18446744073709551615"), std::string::npos);
    }
}

// Two nodes of one real CPU each: where a task runs shows that its thread was bound.
TEST(Arenas, BoundTasksRunOnTheCpusOfTheirNode) {
    const CpuMask before = CpuMask::of_thread(0);
    const std::vector<int> cpus = before.cpus();
    if (cpus.size() < 2) GTEST_SKIP() << "needs two CPUs";
    Topology t = Topology::pretend(2, 1);
    t.bind = true;
    t.nodes[0].cpus = {cpus[0]};
    t.nodes[1].cpus = {cpus[1]};
    for (const int threads : {2, 4}) {
        Arenas arenas(t, threads);
        const std::vector<int64_t> tasks(2, 200);
        std::atomic<int> strays = 0;
        for (int round = 0; round < 20; ++round)
            arenas.parallel_for(tasks,
                                [&](int n, int64_t) { strays += sched_getcpu() != cpus[n]; });
        EXPECT_EQ(strays.load(), 0) << threads << " threads";
        EXPECT_EQ(CpuMask::of_thread(0).cpus(), cpus) << "the caller was not given back";
    }
    // TBB's workers were given back too: those that now serve an unbound arena have all CPUs.
    Arenas plain(Topology::pretend(1, 2), 2);
    std::atomic<int> still_bound = 0;
    for (int round = 0; round < 20; ++round)
        plain.parallel_for(int64_t{200},
                           [&](int64_t) { still_bound += CpuMask::of_thread(0).cpus() != cpus; });
    EXPECT_EQ(still_bound.load(), 0);
}

}  // namespace
}  // namespace conclave::exec
