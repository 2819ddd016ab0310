// Which elements of every logical matrix each rank holds: computed once, from the model's shape
// and the rank grid, identically on all ranks.
//
// Granules are constants of the model, never of a CPU: 16 rows along N, 32 elements along K, a
// query head for attention (its KV head replicated wherever needed), a whole expert for EP.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/interval.h"
#include "sharding/rank_grid.h"

namespace conclave::sharding {

constexpr int64_t kRowGranule = 16;
constexpr int64_t kColumnGranule = 32;

/// One interval per rank. Shared: most matrices of a model are cut alike.
using Cut = std::shared_ptr<const std::vector<Interval>>;

struct PartShard {
    std::string name;
    int64_t n = 0, k = 0;
    Cut rows, cols;
    bool replicated = false;  ///< elements may be held by more than one rank (norms, KV heads)
    /// One matrix of this many of a 3-D parameter, which models name as [stacked, k, n].
    int64_t stacked = 0;
};

class ShardPlan {
  public:
    explicit ShardPlan(RankGrid grid) : grid_(grid) {}
    const RankGrid& grid() const { return grid_; }

    Cut whole(int64_t extent);  ///< everything on every rank
    Cut over_ranks(int64_t extent, int64_t granule);
    /// `units` query heads over all ranks, in elements of `width` a head.
    Cut query_heads(int64_t heads, int64_t width);
    /// The KV heads that each rank's query heads read: floor(h * kv_heads / heads).
    Cut kv_heads(int64_t heads, int64_t kv_heads, int64_t width);
    /// `extent` of expert `expert` over the ranks that share it; empty on other ranks.
    Cut expert_split(int64_t expert, int64_t experts, int64_t extent, int64_t granule);
    Cut expert_whole(int64_t expert, int64_t experts, int64_t extent);
    /// Experts of each rank.
    Cut experts(int64_t experts);

    void add(PartShard part);
    const std::vector<PartShard>& parts() const { return parts_; }

    /// Throws kInternal unless every element of every part is held by a rank, and by one only
    /// where the part is not replicated.
    void check() const;
    /// Equal on ranks that made the same plan.
    uint64_t hash() const;

  private:
    template <class F>
    Cut cached(const std::string& key, F&& interval_of_rank);

    RankGrid grid_;
    std::map<std::string, Cut> cuts_;
    std::vector<PartShard> parts_;
};

}  // namespace conclave::sharding
