#include "moe/dispatch.h"

#include <gtest/gtest.h>

#include <random>

namespace conclave::moe {
namespace {

TEST(Dispatch, EverySlotIsAChoiceAndEveryLocalChoiceASlot) {
    std::mt19937 random(1);
    for (int round = 0; round < 20000; ++round) {
        const int64_t experts = 1 + random() % 20, tokens = random() % 12;
        const int64_t top_k = 1 + random() % experts;
        const bool all_to_one = random() % 10 == 0;
        std::vector<int32_t> ids;
        for (int64_t t = 0; t < tokens; ++t) {
            std::vector<int32_t> row(experts);
            for (int64_t e = 0; e < experts; ++e) row[e] = static_cast<int32_t>(e);
            if (!all_to_one) std::shuffle(row.begin(), row.end(), random);
            ids.insert(ids.end(), row.begin(), row.begin() + top_k);
        }
        const int64_t a = random() % (experts + 1), b = random() % (experts + 1);
        const Interval range{std::min(a, b), std::max(a, b)};
        const Dispatch d = dispatch(ids, top_k, range);
        ASSERT_EQ(static_cast<int64_t>(d.offsets.size()), range.size() + 1);
        std::vector<int> seen(d.slots(), 0);
        for (size_t i = 0; i < ids.size(); ++i) {
            const bool local = ids[i] >= range.begin && ids[i] < range.end;
            ASSERT_EQ(d.slot_of[i] >= 0, local);
            if (!local) continue;
            const int64_t slot = d.slot_of[i], e = ids[i] - range.begin;
            ASSERT_GE(slot, d.offsets[e]);
            ASSERT_LT(slot, d.offsets[e + 1]);
            ASSERT_EQ(d.token[slot], static_cast<int32_t>(i / top_k));
            ++seen[slot];
        }
        for (int s : seen) ASSERT_EQ(s, 1);
    }
}

}  // namespace
}  // namespace conclave::moe
