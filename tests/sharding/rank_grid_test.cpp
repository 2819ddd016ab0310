#include "sharding/rank_grid.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"

namespace conclave::sharding {
namespace {

const ExpertShape kQwen{128, 8, 768};

TEST(RankGrid, LayoutsByName) {
    EXPECT_EQ(choose_grid("tp", 6, kQwen).grid, (RankGrid{6, 6, 1}));
    EXPECT_EQ(choose_grid("ep", 6, kQwen).grid, (RankGrid{6, 1, 6}));
    EXPECT_EQ(choose_grid("2x3", 6, kQwen).grid, (RankGrid{6, 2, 3}));
    for (const char* bad : {"2x2", "x", "2x", "x3", "2x3x1", "-2x-3", "0x0", "TP", "", "2 x 3"})
        EXPECT_THROW(choose_grid(bad, 6, kQwen), Error) << bad;
}

TEST(RankGrid, AutoCutsExpertsWhileSlicesAreThick) {
    EXPECT_EQ(choose_grid("auto", 1, kQwen).grid, (RankGrid{1, 1, 1}));
    EXPECT_EQ(choose_grid("auto", 4, kQwen).grid, (RankGrid{4, 4, 1}));
    // 96 channels are three granules: twelve ranks cannot all have a share of each expert.
    const RankGrid thin = choose_grid("auto", 12, {16, 4, 96}).grid;
    EXPECT_LE(thin.expert_tp, 6);
    EXPECT_EQ(thin.expert_tp * thin.expert_ep, 12);
}

TEST(RankGrid, DenseModelsGetANotice) {
    const LayoutChoice asked = choose_grid("2x3", 6, {});
    EXPECT_TRUE(asked.notice);
    EXPECT_EQ(asked.grid, (RankGrid{6, 6, 1}));
    EXPECT_FALSE(choose_grid("auto", 6, {}).notice);
    EXPECT_THROW(choose_grid("2x2", 6, {}), Error);
}

}  // namespace
}  // namespace conclave::sharding
