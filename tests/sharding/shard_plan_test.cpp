#include "sharding/shard_plan.h"

#include <gtest/gtest.h>

#include <random>

#include "runtime/base/error.h"

namespace conclave::sharding {
namespace {

TEST(Split, SharesTileWholeGranulesRemainderFirst) {
    std::mt19937 random(3);
    for (int round = 0; round < 20000; ++round) {
        const int64_t extent = random() % 500, granule = 1 + random() % 40,
                      ways = 1 + random() % 17;
        int64_t reached = 0, last = INT64_MAX;
        for (int64_t i = 0; i < ways; ++i) {
            const Interval s = split(extent, granule, ways, i);
            ASSERT_EQ(s.begin, reached);
            ASSERT_TRUE(s.begin % granule == 0 || s.empty());
            ASSERT_LE(ceil_div(s.size(), granule), last);
            last = ceil_div(s.size(), granule);
            reached = s.end;
        }
        ASSERT_EQ(reached, extent);
    }
}

TEST(ShardPlan, KvHeadsAreThoseThatQueriesRead) {
    for (int ranks = 1; ranks <= 12; ++ranks)
        for (const auto& [heads, kv] :
             std::vector<std::pair<int64_t, int64_t>>{{6, 3}, {4, 1}, {32, 4}, {7, 7}, {12, 2}}) {
            ShardPlan plan({ranks, ranks, 1});
            const Cut q = plan.query_heads(heads, 8), k = plan.kv_heads(heads, kv, 8);
            for (int r = 0; r < ranks; ++r) {
                ASSERT_EQ((*q)[r].empty(), (*k)[r].empty());
                for (int64_t h = (*q)[r].begin / 8; h < (*q)[r].end / 8; ++h) {
                    ASSERT_LE((*k)[r].begin / 8, h * kv / heads);
                    ASSERT_GT((*k)[r].end / 8, h * kv / heads);
                }
            }
            plan.add({"q", heads * 8, 5, q, plan.whole(5)});
            plan.add({"k", kv * 8, 5, k, plan.whole(5), true});
            plan.check();
        }
}

TEST(ShardPlan, ExpertsAreHeldOnce) {
    for (const RankGrid grid : {RankGrid{1, 1, 1}, RankGrid{6, 6, 1}, RankGrid{6, 1, 6},
                                RankGrid{6, 2, 3}, RankGrid{12, 3, 4}})
        for (const int64_t experts : {1, 5, 6, 13}) {
            ShardPlan plan(grid);
            for (int64_t e = 0; e < experts; ++e) {
                plan.add({"gate", 96, 48, plan.expert_split(e, experts, 96, 32),
                          plan.expert_whole(e, experts, 48)});
                plan.add({"down", 48, 96, plan.expert_whole(e, experts, 48),
                          plan.expert_split(e, experts, 96, 32)});
            }
            plan.check();
            int64_t held = 0;
            for (int r = 0; r < grid.ranks; r += grid.expert_tp)
                held += (*plan.experts(experts))[r].size();
            EXPECT_EQ(held, experts);
        }
}

TEST(ShardPlan, GapsAndOverlapsAreFound) {
    const auto broken = [](std::vector<Interval> rows, bool replicated) {
        ShardPlan plan({2, 2, 1});
        plan.add({"w", 10, 4, std::make_shared<const std::vector<Interval>>(std::move(rows)),
                  plan.whole(4), replicated});
        try {
            plan.check();
            return false;
        } catch (const Error&) {
            return true;
        }
    };
    EXPECT_FALSE(broken({{0, 5}, {5, 10}}, false));
    EXPECT_TRUE(broken({{0, 5}, {6, 10}}, false));
    EXPECT_TRUE(broken({{0, 6}, {5, 10}}, false));
    EXPECT_FALSE(broken({{0, 6}, {5, 10}}, true));
    EXPECT_TRUE(broken({{0, 5}, {0, 5}}, true));
    EXPECT_TRUE(broken({{0, 10}, {0, 10}}, false));
    EXPECT_FALSE(broken({{0, 10}, {0, 0}}, false));
}

TEST(ShardPlan, HashTellsPlansApart) {
    const auto hash = [](int ranks, int64_t n) {
        ShardPlan plan({ranks, ranks, 1});
        plan.add({"w", n, 4, plan.over_ranks(n, 16), plan.whole(4)});
        return plan.hash();
    };
    EXPECT_EQ(hash(3, 100), hash(3, 100));
    EXPECT_NE(hash(3, 100), hash(3, 101));
    EXPECT_NE(hash(3, 100), hash(4, 100));
}

}  // namespace
}  // namespace conclave::sharding
