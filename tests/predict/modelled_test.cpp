// A modelled world of one rank asks for the same collectives as a world that is whole.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/comm/modelled_communicator.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/model_setup.h"
#include "tests/support/local_ranks.h"
#include "tests/support/run_model.h"

namespace conclave::testing {
namespace {

using comm::Collective;
using comm::CommStats;
using comm::ModelledWorld;
using comm::StepTrace;

ModelledWorld one_per_host(int ranks) {
    ModelledWorld world;
    for (int r = 0; r < ranks; ++r) {
        world.host_of.push_back(r);
        world.color_of.push_back(0);
    }
    return world;
}

TEST(Modelled, GathersWhatIsHereAndMakesUpTheRest) {
    StepTrace trace;
    ModelledWorld world;
    world.host_of = {0, 0, 1, 1, 1};
    world.color_of = {0, 1, 0, 1, 0};
    std::vector<std::byte> seen(20, std::byte{0xcc});
    test::run_ranks(2, [&](comm::Communicator& here) {
        // Not owned: run_ranks keeps it.
        const auto comm =
            comm::make_modelled(world, std::shared_ptr<comm::Communicator>(&here, [](auto*) {}),
                                here.rank() == 0 ? &trace : nullptr);
        EXPECT_EQ(comm->size(), 5);
        EXPECT_EQ(comm->hosts(), 2);
        EXPECT_EQ(comm->local_size(), 2);
        EXPECT_EQ(comm->local_rank(), here.rank());
        const std::vector<size_t> bytes = {3, 4, 3, 6, 4};
        std::vector<std::byte> mine(bytes[static_cast<size_t>(here.rank())],
                                    std::byte(1 + here.rank())),
            all(20, std::byte{0xcc});
        comm->all_gather(mine.data(), all.data(), bytes);
        if (here.rank() == 0) seen = all;
        float sum = here.rank() == 0 ? 2.0f : 3.0f;
        comm->all_reduce_sum(&sum, 1);
        EXPECT_EQ(sum, 5.0f);
        const auto part = comm->split(here.rank(), here.rank());
        EXPECT_EQ(part->size(), here.rank() == 0 ? 3 : 2);
        EXPECT_EQ(part->rank(), 0);
        EXPECT_EQ(part->hosts(), 2);
    });
    const int expected[] = {1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0};
    for (size_t i = 0; i < seen.size(); ++i)
        EXPECT_EQ(std::to_integer<int>(seen[i]), expected[i]) << i;
    ASSERT_EQ(trace.rest.collectives.size(), 2u);
    const Collective& gather = trace.rest.collectives[0];
    EXPECT_EQ(gather.kind, Collective::Kind::kAllGather);
    EXPECT_EQ(gather.hosts, 2);
    EXPECT_EQ(gather.bytes, 20u);
    EXPECT_EQ(gather.largest_host, 13u);
    EXPECT_EQ(gather.smallest_host, 7u);
    EXPECT_EQ(trace.rest.collectives[1].bytes, sizeof(float));
}

TEST(StepTrace, ChargesLayersAndTheRest) {
    StepTrace trace;
    trace.layers.resize(2);
    trace.begin();
    trace.phase("embedding");
    trace.add({Collective::Kind::kAllGather, 2, 1, 1, 0});
    for (const char* phase : {"layer 0 attention", "layer 0 mlp", "layer 1 attention"}) {
        trace.phase(phase);
        trace.add({Collective::Kind::kAllReduce, 2, 2, 0, 0});
    }
    trace.phase("logits");
    trace.add({Collective::Kind::kAllGather, 2, 3, 3, 0});
    trace.end();
    EXPECT_EQ(trace.layers[0].collectives.size(), 2u);
    EXPECT_EQ(trace.layers[1].collectives.size(), 1u);
    EXPECT_EQ(trace.rest.collectives.size(), 2u);
    EXPECT_GT(trace.layers[0].seconds, 0);
    EXPECT_GT(trace.layers[1].seconds, 0);
    EXPECT_GT(trace.rest.seconds, 0);
    const double before = trace.rest.seconds;
    trace.phase("layer 1 mlp");  // after the end: another step's
    EXPECT_EQ(trace.rest.seconds, before);
}

/// Of one decode step, as rank 0 counts it.
CommStats one_step(engine::Engine& engine) {
    SequenceRequest request;
    request.prompt = {1};
    request.max_tokens = 4;
    request.ignore_eos = true;
    engine.add(std::move(request));
    engine.step();
    const EngineStats before = engine.stats();
    const uint64_t calls = engine.comm().stats().calls;
    engine.step();
    const EngineStats after = engine.stats();
    CommStats used;
    used.calls = engine.comm().stats().calls - calls;
    used.bytes = after.communication_bytes - before.communication_bytes;
    while (engine.has_work()) engine.step();
    return used;
}

TEST(Modelled, CountsWhatARealWorldCounts) {
    for (const char* name : {"qwen3moe-odd", "qwen2moe", "llama"})
        for (const bool deterministic : {false, true})
            for (const auto& [ranks, layout] :
                 std::vector<std::pair<int, std::string>>{{2, "auto"}, {3, "tp"}, {4, "2x2"}}) {
                SCOPED_TRACE(std::string(name) + " " + std::to_string(ranks) + " " + layout);
                EngineOptions options;
                options.model = fixture(name);
                options.load_format = "dummy";
                options.dummy_dtype = "bf16";
                options.deterministic = deterministic;
                options.expert_parallel = layout;
                options.threads = 1;
                options.max_model_len = 32;
                CommStats real;
                test::run_ranks(ranks, [&](comm::Communicator& comm) {
                    engine::Engine engine(options,
                                          std::shared_ptr<comm::Communicator>(&comm, [](auto*) {}));
                    if (comm.rank() != 0) return engine.follow();
                    real = one_step(engine);
                    engine.shutdown();
                });
                ModelledWorld world = one_per_host(ranks);
                const auto grid = engine::set_up_model(options, ranks).layout.grid;
                for (int r = 0; r < ranks; ++r)
                    world.color_of[static_cast<size_t>(r)] = grid.ep_index(r);
                engine::Engine engine(options,
                                      comm::make_modelled(world, comm::make_self(), nullptr));
                const CommStats modelled = one_step(engine);
                EXPECT_EQ(modelled.calls, real.calls);
                // Gathers of whole experts depend on which were chosen.
                if (!(deterministic && layout == "2x2")) {
                    EXPECT_EQ(modelled.bytes, real.bytes);
                }
                EXPECT_GT(real.bytes, 0u);
            }
}

}  // namespace
}  // namespace conclave::testing
