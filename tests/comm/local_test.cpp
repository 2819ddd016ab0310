#include "runtime/comm/local_communicator.h"

#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "tests/comm/collective_cases.h"
#include "tests/support/local_ranks.h"

namespace conclave::test {
namespace {

struct Setup {
    int ranks;
    size_t slot_bytes;  // 64: nearly everything is cut into chunks
};

class Local : public testing::TestWithParam<std::tuple<Setup, CollectiveCase>> {};

TEST_P(Local, Case) {
    const auto& [setup, test] = GetParam();
    run_ranks(setup.ranks, test.body, {.slot_bytes = setup.slot_bytes});
}

INSTANTIATE_TEST_SUITE_P(
    , Local,
    testing::Combine(testing::Values(Setup{1, 0}, Setup{2, 0}, Setup{3, 0}, Setup{5, 0},
                                     Setup{8, 0}, Setup{16, 0}, Setup{2, 64}, Setup{3, 1024}),
                     testing::ValuesIn(kCollectiveCases)),
    [](const auto& info) {
        const Setup& setup = std::get<0>(info.param);
        return "r" + std::to_string(setup.ranks) +
               (setup.slot_bytes == 0 ? "" : "_slot" + std::to_string(setup.slot_bytes)) + "_" +
               std::get<1>(info.param).name;
    });

class Self : public testing::TestWithParam<CollectiveCase> {};

TEST_P(Self, Case) {
    const auto comm = comm::make_self();
    EXPECT_STREQ(comm->backend(), "self");
    GetParam().body(*comm);
}

INSTANTIATE_TEST_SUITE_P(, Self, testing::ValuesIn(kCollectiveCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(LocalFailures, RefusesNoRanks) { EXPECT_THROW(comm::make_local(0), Error); }

TEST(LocalFailures, UnnamedFailureOfOneRankEndsAll) {
    const RankFailures failures = run_ranks_collect(3, [](comm::Communicator& comm) {
        if (comm.rank() == 1) throw std::runtime_error("fell over");
        comm.barrier();
    });
    for (const std::exception_ptr& failure : failures) {
        ASSERT_TRUE(failure);
        try {
            std::rethrow_exception(failure);
        } catch (const std::exception& e) {
            EXPECT_NE(std::string(e.what()).find("fell over"), std::string::npos) << e.what();
        }
    }
}

}  // namespace
}  // namespace conclave::test
