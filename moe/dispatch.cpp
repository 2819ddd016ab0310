#include "moe/dispatch.h"

namespace conclave::moe {

Dispatch dispatch(std::span<const int32_t> ids, int64_t top_k, Interval experts) {
    Dispatch d;
    d.offsets.assign(experts.size() + 1, 0);
    const auto local = [&](int32_t id) { return id >= experts.begin && id < experts.end; };
    for (int32_t id : ids)
        if (local(id)) ++d.offsets[id - experts.begin + 1];
    for (size_t e = 1; e < d.offsets.size(); ++e) d.offsets[e] += d.offsets[e - 1];
    d.token.resize(d.offsets.back());
    d.slot_of.assign(ids.size(), -1);
    std::vector<int64_t> next(d.offsets.begin(), d.offsets.end() - 1);
    for (size_t i = 0; i < ids.size(); ++i) {
        if (!local(ids[i])) continue;
        const int64_t slot = next[ids[i] - experts.begin]++;
        d.slot_of[i] = slot;
        d.token[slot] = static_cast<int32_t>(static_cast<int64_t>(i) / top_k);
    }
    return d;
}

}  // namespace conclave::moe
