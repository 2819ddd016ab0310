#include "quant/grouping.h"

#include <algorithm>
#include <numeric>

namespace conclave::quant {
namespace {

void add_run(Grouping& g, int64_t columns, int64_t group) {
    g.runs.push_back({static_cast<int32_t>(columns), static_cast<int32_t>(group)});
    g.columns += columns;
    g.padded += round_up(columns, kRunGranule);
    for (int64_t left = columns; left > 0; left -= kBlockColumns)
        g.blocks.push_back(static_cast<uint8_t>(std::min(left, kBlockColumns)));
}

}  // namespace

Grouping uniform_grouping(Interval k, int64_t group) {
    Grouping g;
    const int64_t width = group > 0 ? group : k.end;
    for (int64_t c = k.begin; c < k.end;) {
        const int64_t end = std::min(k.end, (c / width + 1) * width);
        add_run(g, end - c, c / width);
        c = end;
    }
    return g;
}

Grouping permuted_grouping(std::span<const int32_t> group_of) {
    Grouping g;
    std::vector<int32_t> order(group_of.size());
    std::iota(order.begin(), order.end(), 0);
    if (!std::is_sorted(group_of.begin(), group_of.end())) {
        std::stable_sort(order.begin(), order.end(),
                         [&](int32_t a, int32_t b) { return group_of[a] < group_of[b]; });
        g.order = order;
    }
    for (size_t c = 0; c < order.size();) {
        size_t end = c;
        while (end < order.size() && group_of[order[end]] == group_of[order[c]]) ++end;
        add_run(g, static_cast<int64_t>(end - c), group_of[order[c]]);
        c = end;
    }
    return g;
}

}  // namespace conclave::quant
