// Predictions: what must hold whatever this machine's speed.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "launch/options.h"
#include "runtime/api/conclave.hpp"
#include "runtime/api/conclave_predict.hpp"
#include "tests/support/run_model.h"

namespace conclave::testing {
namespace {

EngineOptions dummy(const std::string& model) {
    EngineOptions options;
    options.model = model;
    options.load_format = "dummy";
    options.threads = 1;
    return options;
}

PredictOptions quick(std::vector<int> ranks, const std::vector<const char*>& links) {
    PredictOptions how;
    how.ranks = std::move(ranks);
    for (const char* link : links) how.links.push_back(parse_link(link));
    how.seconds = 0.01;
    return how;
}

TEST(Predict, FollowsTheLink) {
    const Prediction p =
        predict(dummy(fixture("qwen3moe-odd")),
                quick({1, 2, 5}, {"1Gbit,50us", "1Gbit,200us", "10Mbit,50us", "1Gbit,50us,1GB"}));
    ASSERT_EQ(p.ranks.size(), 3u);
    for (const RanksPrediction& r : p.ranks) {
        EXPECT_EQ(r.hosts, r.ranks);
        EXPECT_EQ(r.layers_measured, r.layers);
        EXPECT_GT(r.compute_seconds, 0);
        EXPECT_GT(r.read_bandwidth, 0);
        EXPECT_GT(r.weight_bandwidth, 0);
        EXPECT_GT(r.collectives, 2 * r.layers);
        ASSERT_EQ(r.links.size(), 4u);
        for (const LinkPrediction& l : r.links) {
            EXPECT_TRUE(std::isfinite(l.tokens_per_second) && l.tokens_per_second > 0);
            EXPECT_NEAR(l.seconds_per_step,
                        r.compute_seconds + l.latency_seconds + l.bandwidth_seconds,
                        1e-9 * l.seconds_per_step);
            EXPECT_NEAR(l.tokens_per_second * l.seconds_per_step, 1, 1e-9);
        }
        if (r.ranks == 1) {
            EXPECT_EQ(r.links[0].bytes, 0);
            EXPECT_EQ(r.links[0].seconds_per_step, r.links[2].seconds_per_step);
            continue;
        }
        EXPECT_NEAR(r.links[1].latency_seconds - r.links[0].latency_seconds,
                    r.links[0].latencies * 150e-6, 1e-9);
        EXPECT_NEAR(r.links[2].bandwidth_seconds, 100 * r.links[0].bandwidth_seconds, 1e-9);
        EXPECT_LT(r.links[1].tokens_per_second, r.links[0].tokens_per_second);
        EXPECT_LT(r.links[2].tokens_per_second, r.links[0].tokens_per_second);
        EXPECT_GE(r.links[3].tokens_per_second, r.links[0].tokens_per_second);
    }
    const auto json = nlohmann::json::parse(to_json(p));
    EXPECT_EQ(json["predictions"].size(), 3u);
    EXPECT_EQ(json["predictions"][1]["links"][1]["link"], "1Gbit,200us");
}

TEST(Predict, RanksOnOneHostCrossNoLink) {
    PredictOptions how = quick({4}, {"1kbit,1s"});
    how.ranks_per_host = 4;
    const Prediction one = predict(dummy(fixture("qwen2moe")), how);
    EXPECT_EQ(one.ranks[0].hosts, 1);
    EXPECT_EQ(one.ranks[0].ranks_at_once, 4);
    EXPECT_EQ(one.ranks[0].links[0].bytes, 0);
    how.ranks_per_host = 3;  // the fourth on a host of its own
    how.batch = 3;
    const Prediction two = predict(dummy(fixture("qwen2moe")), how);
    EXPECT_EQ(two.ranks[0].hosts, 2);
    EXPECT_EQ(two.ranks[0].ranks_at_once, 3);
    EXPECT_GT(two.ranks[0].links[0].latency_seconds, 1);
    how.ranks_per_host = 1, how.hosts_here = 2;
    EXPECT_EQ(predict(dummy(fixture("qwen2moe")), how).ranks[0].ranks_at_once, 2);
}

TEST(Predict, MeasuresCheckpointsToo) {
    EngineOptions options;
    options.model = std::string(CONCLAVE_SOURCE_DIR) + "/launch/examples/shakespeare-4bit";
    options.threads = 1;
    const Prediction p = predict(options, quick({3}, {"1Gbit,50us"}));
    EXPECT_GT(p.ranks[0].links[0].tokens_per_second, 0);
    EXPECT_EQ(p.ranks[0].weight_bytes, plan(options, 3).ranks[0].weight_bytes);
}

TEST(Predict, HoldsNoMoreThanItMay) {
    const std::string model = std::string(CONCLAVE_SOURCE_DIR) + "/launch/examples/shapes/bench";
    EngineOptions options = dummy(model);
    options.dummy_dtype = "int4-g128";
    PredictOptions how = quick({64}, {"1Gbit,50us"});
    how.memory_bytes = uint64_t{24} << 20;
    const Prediction p = predict(options, how);
    EXPECT_LE(p.ranks[0].weight_bytes, how.memory_bytes);
    EXPECT_LT(p.ranks[0].layers_measured, p.ranks[0].layers);
    EXPECT_GT(p.ranks[0].layers_measured, 1);
    how.memory_bytes = 1 << 20;
    try {
        predict(options, how);
        ADD_FAILURE() << "1 MiB held a layer";
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kResource);
    }
}

TEST(Predict, RefusesWhatCannotBe) {
    const EngineOptions options = dummy(fixture("llama"));
    const auto refused = [&](const std::function<void(PredictOptions&)>& change) {
        PredictOptions how = quick({2}, {"1Gbit,50us"});
        change(how);
        try {
            predict(options, how);
            ADD_FAILURE();
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kUsage) << e.what();
        }
    };
    refused([](PredictOptions& how) { how.ranks = {}; });
    refused([](PredictOptions& how) { how.ranks = {2, 0}; });
    refused([](PredictOptions& how) { how.links = {}; });
    refused([](PredictOptions& how) { how.links[0].bytes_per_second = 0; });
    refused([](PredictOptions& how) { how.links[0].latency_seconds = NAN; });
    refused([](PredictOptions& how) { how.links[0].burst_bytes = -1; });
    refused([](PredictOptions& how) { how.ranks_per_host = 0; });
    refused([](PredictOptions& how) { how.hosts_here = 0; });
    refused([](PredictOptions& how) { how.batch = 0; });
    refused([](PredictOptions& how) { how.seconds = 0; });
}

TEST(PlanOptions, LinksAndRanks) {
    using launch::parse;
    EXPECT_EQ(launch::parse_ranks("1-3,8"), (std::vector<int>{1, 2, 3, 8}));
    for (const char* text : {"", "0", "1,", ",1", "3-1", "1-", "-1", "1 2", "65537", "1-2-3", "a"})
        EXPECT_THROW(launch::parse_ranks(text), Error) << text;
    const auto to = parse({"plan", "M", "--ranks", "1-3", "--link", "1Gbit,50us", "--link",
                           "10Gbit,20us,1MB", "--hosts-here", "2"});
    EXPECT_EQ(to.predict.ranks.size(), 3u);
    ASSERT_EQ(to.predict.links.size(), 2u);
    EXPECT_EQ(to.predict.links[1].burst_bytes, 1e6);
    EXPECT_EQ(to.predict.hosts_here, 2);
    EXPECT_EQ(parse({"plan", "M", "--ranks", "7"}).plan_ranks, 7);
    EXPECT_TRUE(parse({"plan", "M"}).predict.links.empty());
    for (const std::vector<std::string>& bad : std::vector<std::vector<std::string>>{
             {"plan", "M", "--ranks", "1,2"},
             {"plan", "M", "--link", "fast"},
             {"plan", "M", "--batch", "2"},
             {"plan", "M", "--link", "1Gbit,50us", "--kernels"},
             {"plan", "M", "--link", "1Gbit,50us", "--ranks-per-host", "0"}})
        EXPECT_THROW(parse(bad), Error) << bad.back();
}

}  // namespace
}  // namespace conclave::testing
