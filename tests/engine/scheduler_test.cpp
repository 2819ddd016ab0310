// The scheduler alone, with random requests: budgets kept, blocks never shared, all work done.
#include "runtime/engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "runtime/engine/kv_cache.h"

namespace conclave::engine {
namespace {

TEST(Scheduler, KeepsItsPromisesOnRandomWork) {
    for (uint32_t seed = 0; seed < 60; ++seed) {
        std::mt19937 random(seed);
        const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
        const StepLimits limits{.max_num_seqs = 1 + below(5),
                                .max_num_batched_tokens = 1 + below(70),
                                .max_model_len = 200,
                                .blocks = 8 + below(20),
                                .vocab_size = 50};
        Scheduler scheduler(limits);
        std::map<uint32_t, std::set<int32_t>> blocks_of_slot;
        std::set<SequenceId> open;
        std::map<SequenceId, uint32_t> slot_of;
        int64_t to_add = 30;
        while (to_add > 0 || scheduler.has_work()) {
            if (to_add > 0 && below(2)) {
                SequenceRequest r;
                r.prompt.assign(static_cast<size_t>(1 + below(120)), 3);
                r.max_tokens = below(60);
                open.insert(scheduler.add(std::move(r)));
                --to_add;
            }
            if (below(15) == 0 && !open.empty()) scheduler.cancel(*open.begin());
            for (SequenceId id : scheduler.take_cancelled()) {
                EXPECT_EQ(open.erase(id), 1u);
                if (slot_of.count(id)) blocks_of_slot.erase(slot_of[id]);
            }
            const StepMessage m = scheduler.plan();
            if (m.entries.empty()) {
                ASSERT_TRUE(!scheduler.has_work()) << "work, but no step: a deadlock";
                continue;
            }
            ASSERT_LE(static_cast<int64_t>(m.tokens.size()), limits.max_num_batched_tokens);
            ASSERT_LE(static_cast<int64_t>(m.entries.size()), limits.max_num_seqs);
            for (const Planned& p : scheduler.planned()) slot_of[p.sequence->id] = p.sequence->slot;
            std::set<uint32_t> slots;
            size_t block = 0;
            for (size_t i = 0; i < m.entries.size(); ++i) {
                const StepEntry& e = m.entries[i];
                ASSERT_TRUE(slots.insert(e.slot).second);
                if (e.fresh) blocks_of_slot[e.slot].clear();
                for (uint32_t b = 0; b < e.new_blocks; ++b)
                    blocks_of_slot[e.slot].insert(m.blocks[block++]);
                ASSERT_GE(static_cast<int64_t>(blocks_of_slot[e.slot].size()) * kBlockTokens,
                          e.start + e.tokens);
                for (const auto& [slot, own] : blocks_of_slot)
                    if (slot != e.slot)
                        for (int32_t b : own) ASSERT_FALSE(blocks_of_slot[e.slot].count(b));
            }
            scheduler.commit();
            std::vector<std::pair<Sequence*, uint32_t>> done;
            for (const Planned& p : scheduler.planned()) {
                Sequence& s = *p.sequence;
                if (s.computed < static_cast<int64_t>(s.tokens.size())) continue;
                if (p.samples) s.tokens.push_back(1);
                if (!p.samples || static_cast<int64_t>(s.tokens.size()) >= s.limit)
                    done.push_back({&s, s.slot});
            }
            for (auto& [s, slot] : done) {
                EXPECT_EQ(open.erase(s->id), 1u);
                blocks_of_slot.erase(slot);
                scheduler.finish(s);
            }
        }
        EXPECT_TRUE(open.empty());
    }
}

TEST(Scheduler, DecodesBeforeItPrefills) {
    Scheduler scheduler({.max_num_seqs = 4,
                         .max_num_batched_tokens = 10,
                         .max_model_len = 100,
                         .blocks = 20,
                         .vocab_size = 50});
    SequenceRequest small, large;
    small.prompt = {1, 2};
    large.prompt.assign(30, 4);
    small.max_tokens = large.max_tokens = 10;
    scheduler.add(small);
    StepMessage m = scheduler.plan();
    scheduler.commit();
    scheduler.planned()[0].sequence->tokens.push_back(9);
    scheduler.add(large);
    m = scheduler.plan();
    ASSERT_EQ(m.entries.size(), 2u);
    EXPECT_EQ(m.entries[0].tokens, 1u);
    EXPECT_EQ(m.entries[0].start, 2);
    EXPECT_EQ(m.entries[1].tokens, 9u) << "a chunk of the long prompt fills the step";
}

}  // namespace
}  // namespace conclave::engine
