#include "sharding/weight_store.h"

#include <algorithm>

#include "runtime/base/checked.h"
#include "runtime/base/interval.h"

namespace conclave::sharding {

WeightStore::WeightStore(std::vector<double> shares)
    : shares_(std::move(shares)), used_(shares_.size(), 0) {}

size_t WeightStore::reserve(int node, size_t bytes) {
    const size_t at = used_[node];
    used_[node] = checked_add<uint64_t>(at, round_up(static_cast<int64_t>(bytes), 64));
    return at;
}

size_t WeightStore::reserved_bytes() const {
    size_t total = 0;
    for (size_t u : used_) total += u;
    return total;
}

void WeightStore::map() {
    for (size_t bytes : used_) {
        slabs_.emplace_back(std::max<size_t>(bytes, 64));
        bases_.push_back(slabs_.back().data());
    }
}

exec::PageKind WeightStore::pages() const {
    exec::PageKind worst = exec::PageKind::kHugeTlb;
    for (const exec::Slab& s : slabs_) worst = std::max(worst, s.pages());
    return worst;
}

}  // namespace conclave::sharding
