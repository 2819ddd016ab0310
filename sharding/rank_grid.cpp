#include "sharding/rank_grid.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/base/interval.h"

namespace conclave::sharding {
namespace {

std::optional<int> positive(const std::string& s) {
    int v = 0;
    const auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), v);
    if (ec != std::errc() || end != s.data() + s.size() || v < 1) return std::nullopt;
    return v;
}

RankGrid explicit_grid(const std::string& layout, int ranks) {
    if (layout == "tp") return {ranks, ranks, 1};
    if (layout == "ep") return {ranks, 1, ranks};
    const size_t x = layout.find('x');
    const auto tp = x == std::string::npos ? std::nullopt : positive(layout.substr(0, x));
    const auto ep = x == std::string::npos ? std::nullopt : positive(layout.substr(x + 1));
    if (!tp || !ep)
        throw Error(ErrorCode::kUsage, "--expert-parallel is not a layout")
            .expected("auto, tp, ep or TPxEP such as 2x4")
            .found("'" + layout + "'");
    if (static_cast<int64_t>(*tp) * *ep != ranks)
        throw Error(ErrorCode::kUsage, "--expert-parallel does not fit the number of ranks")
            .expected(fmt::format("a product of {} (the ranks of this job)", ranks))
            .found(layout);
    return {ranks, *tp, *ep};
}

}  // namespace

std::string RankGrid::to_string() const {
    return fmt::format("tensor parallel {}, experts {}x{} (TPxEP)", ranks, expert_tp, expert_ep);
}

double expert_cost(const ExpertShape& shape, int expert_tp, int expert_ep) {
    const double share =
        static_cast<double>(split(shape.width, shape.width_granule, expert_tp, 0).size()) /
        static_cast<double>(std::max<int64_t>(shape.width, 1));
    const double mean = static_cast<double>(shape.top_k) / expert_ep;
    // Balls into bins: the fullest of E bins holds about mean + sqrt(2 mean ln E).
    const double fullest = expert_ep == 1 ? mean : mean + std::sqrt(2 * mean * std::log(expert_ep));
    return share * std::min(fullest, static_cast<double>(shape.top_k));
}

LayoutChoice choose_grid(const std::string& layout, int ranks, const ExpertShape& shape) {
    if (layout != "auto") {
        LayoutChoice choice{explicit_grid(layout, ranks), "as asked", false};
        if (shape.experts == 0) {
            choice.notice = true;
            choice.reason = "--expert-parallel " + layout +
                            " has no effect: this model has no experts, all layers are cut over "
                            "all ranks";
            choice.grid = {ranks, ranks, 1};
        }
        return choice;
    }
    if (shape.experts == 0) return {{ranks, ranks, 1}, "a dense model: cut over all ranks", false};
    LayoutChoice best;
    double best_cost = 0;
    std::string compared;
    for (int tp = ranks; tp >= 1; --tp) {
        if (ranks % tp) continue;
        const double cost = expert_cost(shape, tp, ranks / tp);
        compared +=
            fmt::format("{}{}x{}: {:.2f}", compared.empty() ? "" : ", ", tp, ranks / tp, cost);
        if (best_cost == 0 || cost < best_cost)
            best.grid = {ranks, tp, ranks / tp}, best_cost = cost;
    }
    best.reason =
        "least expert weight on the busiest rank per decoded token (in experts; " + compared + ")";
    return best;
}

}  // namespace conclave::sharding
