#include "runtime/engine/step_message.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/local_ranks.h"

namespace conclave::engine {
namespace {

const StepLimits kLimits{.max_num_seqs = 8,
                         .max_num_batched_tokens = 4000,
                         .max_model_len = 5000,
                         .blocks = 400,
                         .vocab_size = 1000};

StepMessage random_message(uint32_t seed, int64_t most_tokens) {
    std::mt19937 random(seed);
    const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
    StepMessage m;
    m.step = seed;
    m.candidates = static_cast<uint32_t>(below(50));
    for (int64_t i = 0, n = 1 + below(8); i < n; ++i) {
        StepEntry e;
        e.slot = static_cast<uint32_t>(i);
        e.fresh = 1;
        e.tokens = static_cast<uint32_t>(1 + below(most_tokens));
        e.new_blocks = (e.tokens + 31) / 32;
        e.logits = static_cast<LogitRows>(below(3));
        for (uint32_t t = 0; t < e.tokens; ++t)
            m.tokens.push_back(static_cast<int32_t>(below(1000)));
        for (uint32_t b = 0; b < e.new_blocks; ++b)
            m.blocks.push_back(static_cast<int32_t>(below(400)));
        m.entries.push_back(e);
    }
    return m;
}

TEST(StepMessage, ArrivesAsItWasSent) {
    for (uint32_t seed = 0; seed < 40; ++seed) {
        const StepMessage sent = random_message(seed, seed % 2 ? 8 : 400);
        test::run_ranks(3, [&](comm::Communicator& comm) {
            StepMessage m;
            if (comm.rank() == 0) m = sent;
            exchange_step(comm, kLimits, m);
            EXPECT_EQ(m.step, sent.step);
            EXPECT_EQ(m.candidates, sent.candidates);
            EXPECT_EQ(m.tokens, sent.tokens);
            EXPECT_EQ(m.blocks, sent.blocks);
            ASSERT_EQ(m.entries.size(), sent.entries.size());
            for (size_t i = 0; i < m.entries.size(); ++i) {
                EXPECT_EQ(m.entries[i].tokens, sent.entries[i].tokens);
                EXPECT_EQ(m.entries[i].logits, sent.entries[i].logits);
            }
        });
    }
}

TEST(StepMessage, WhatBreaksTheLimitsIsRefused) {
    const auto refused = [](const std::function<void(StepMessage&)>& change) {
        StepMessage m = random_message(1, 8);
        change(m);
        bool thrown = false;
        test::run_ranks(1, [&](comm::Communicator& comm) {
            try {
                exchange_step(comm, kLimits, m);
            } catch (const Error&) {
                thrown = true;
            }
        });
        return thrown;
    };
    EXPECT_FALSE(refused([](StepMessage&) {}));
    EXPECT_TRUE(refused([](StepMessage& m) { m.tokens[0] = 1000; }));
    EXPECT_TRUE(refused([](StepMessage& m) { m.tokens[0] = -1; }));
    EXPECT_TRUE(refused([](StepMessage& m) { m.tokens.pop_back(); }));
    EXPECT_TRUE(refused([](StepMessage& m) { m.blocks[0] = 400; }));
    EXPECT_TRUE(refused([](StepMessage& m) { m.entries[0].slot = 8; }));
    EXPECT_TRUE(refused([](StepMessage& m) { m.entries[0].tokens = 0; }));
    EXPECT_TRUE(refused([](StepMessage& m) { m.entries[0].start = -1; }));
    EXPECT_TRUE(refused([](StepMessage& m) { m.entries[0].start = 5000; }));
    EXPECT_TRUE(refused([](StepMessage& m) { m.candidates = 1001; }));
    EXPECT_TRUE(refused([](StepMessage& m) { m.entries.resize(9); }));
}

TEST(StepTables, GrowAndForget) {
    StepTables tables(kLimits);
    StepMessage m;
    m.entries = {{.slot = 2,
                  .fresh = 1,
                  .start = 0,
                  .tokens = 33,
                  .new_blocks = 2,
                  .logits = LogitRows::kLast}};
    m.tokens.assign(33, 1);
    m.blocks = {7, 9};
    StepBatch b = tables.apply(m);
    EXPECT_EQ(b.logit_rows, (std::vector<int32_t>{32}));
    EXPECT_EQ(b.positions[32], 32);
    EXPECT_EQ(b.sequences[0].blocks[1], 9);
    m.entries = {{.slot = 2, .start = 33, .tokens = 1, .logits = LogitRows::kAll}};
    m.tokens = {5};
    m.blocks = {};
    b = tables.apply(m);
    EXPECT_EQ(b.positions, (std::vector<int64_t>{33}));
    EXPECT_EQ(b.sequences[0].blocks.size(), 2u);
    m.entries[0].start = 64;
    EXPECT_THROW(tables.apply(m), Error) << "no block holds position 64";
    m.entries = {{.slot = 2, .fresh = 1, .start = 0, .tokens = 1, .new_blocks = 1}};
    m.blocks = {3};
    EXPECT_EQ(tables.apply(m).sequences[0].blocks[0], 3);
}

}  // namespace
}  // namespace conclave::engine
