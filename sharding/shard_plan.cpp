#include "sharding/shard_plan.h"

#include <algorithm>
#include <set>
#include <tuple>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/base/hash.h"

namespace conclave::sharding {
namespace {

/// Sorted non-empty intervals must tile [0, extent) (overlaps allowed when `overlap`).
bool covers(std::vector<Interval> intervals, int64_t extent, bool overlap) {
    std::sort(intervals.begin(), intervals.end(), [](const Interval& a, const Interval& b) {
        return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
    });
    int64_t reached = 0;
    for (const Interval& i : intervals) {
        if (i.begin > reached || (!overlap && i.begin != reached)) return false;
        reached = std::max(reached, i.end);
    }
    return reached == extent;
}

/// A part is covered exactly once if, for ranks grouped by their columns, rows tile N and the
/// groups' columns tile K. All cuts of the house are of that product form.
bool exactly_once(const PartShard& p) {
    std::map<std::pair<int64_t, int64_t>, std::vector<Interval>> rows_of_cols;
    for (size_t r = 0; r < p.rows->size(); ++r) {
        const Interval rows = (*p.rows)[r], cols = (*p.cols)[r];
        if (rows.empty() || cols.empty()) continue;
        rows_of_cols[{cols.begin, cols.end}].push_back(rows);
    }
    std::vector<Interval> cols;
    for (const auto& [c, rows] : rows_of_cols) {
        if (!covers(rows, p.n, p.replicated)) return false;
        cols.push_back({c.first, c.second});
    }
    return covers(cols, p.k, p.replicated);
}

}  // namespace

template <class F>
Cut ShardPlan::cached(const std::string& key, F&& interval_of_rank) {
    Cut& cut = cuts_[key];
    if (!cut) {
        std::vector<Interval> v;
        for (int r = 0; r < grid_.ranks; ++r) v.push_back(interval_of_rank(r));
        cut = std::make_shared<const std::vector<Interval>>(std::move(v));
    }
    return cut;
}

Cut ShardPlan::whole(int64_t extent) {
    return cached(fmt::format("whole {}", extent), [&](int) { return Interval{0, extent}; });
}

Cut ShardPlan::over_ranks(int64_t extent, int64_t granule) {
    return cached(fmt::format("ranks {} {}", extent, granule),
                  [&](int r) { return split(extent, granule, grid_.ranks, r); });
}

Cut ShardPlan::query_heads(int64_t heads, int64_t width) {
    return over_ranks(heads * width, width);
}

Cut ShardPlan::kv_heads(int64_t heads, int64_t kv_heads, int64_t width) {
    return cached(fmt::format("kv {} {} {}", heads, kv_heads, width), [&](int r) {
        const Interval q = split(heads, 1, grid_.ranks, r);
        if (q.empty()) return Interval{0, 0};
        return Interval{q.begin * kv_heads / heads * width,
                        ((q.end - 1) * kv_heads / heads + 1) * width};
    });
}

Cut ShardPlan::experts(int64_t experts) {
    return cached(fmt::format("experts {}", experts),
                  [&](int r) { return split(experts, 1, grid_.expert_ep, grid_.ep_index(r)); });
}

Cut ShardPlan::expert_split(int64_t expert, int64_t experts, int64_t extent, int64_t granule) {
    int group = 0;
    while (split(experts, 1, grid_.expert_ep, group).end <= expert) ++group;
    return cached(fmt::format("group {} {} {}", group, extent, granule), [&](int r) {
        if (grid_.ep_index(r) != group) return Interval{0, 0};
        return split(extent, granule, grid_.expert_tp, grid_.tp_index(r));
    });
}

Cut ShardPlan::expert_whole(int64_t expert, int64_t experts, int64_t extent) {
    int group = 0;
    while (split(experts, 1, grid_.expert_ep, group).end <= expert) ++group;
    return cached(fmt::format("group {} {}", group, extent), [&](int r) {
        return grid_.ep_index(r) == group ? Interval{0, extent} : Interval{0, 0};
    });
}

void ShardPlan::add(PartShard part) { parts_.push_back(std::move(part)); }

void ShardPlan::check() const {
    std::set<std::tuple<const void*, const void*, int64_t, int64_t, bool>> done;
    for (const PartShard& p : parts_) {
        if (!done.insert({p.rows.get(), p.cols.get(), p.n, p.k, p.replicated}).second) continue;
        if (!exactly_once(p))
            throw Error(ErrorCode::kInternal, "the shard plan does not cover a matrix exactly once")
                .tensor(p.name)
                .expected(fmt::format("[{}, {}]", p.n, p.k));
    }
}

uint64_t ShardPlan::hash() const {
    Hasher h;
    for (const PartShard& p : parts_) {
        h.add(p.name);
        for (size_t r = 0; r < p.rows->size(); ++r)
            for (int64_t v :
                 {(*p.rows)[r].begin, (*p.rows)[r].end, (*p.cols)[r].begin, (*p.cols)[r].end})
                h.add(static_cast<uint64_t>(v));
    }
    return h.value();
}

}  // namespace conclave::sharding
