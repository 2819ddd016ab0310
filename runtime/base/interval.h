// Half-open ranges of logical elements.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>

namespace conclave {

struct Interval {
    int64_t begin = 0, end = 0;

    int64_t size() const { return end - begin; }
    bool empty() const { return end <= begin; }
    bool operator==(const Interval&) const = default;
    std::string to_string() const {
        return "[" + std::to_string(begin) + ", " + std::to_string(end) + ")";
    }
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/// Share `index` of `extent` elements cut into `ways`: whole granules, the remainder one granule at
/// a time to the first; a last granule may be short. Shares may be empty.
constexpr Interval split(int64_t extent, int64_t granule, int64_t ways, int64_t index) {
    const int64_t granules = ceil_div(extent, granule);
    const int64_t each = granules / ways, more = granules % ways;
    const int64_t first = index * each + std::min(index, more);
    const int64_t last = first + each + (index < more ? 1 : 0);
    return {std::min(first * granule, extent), std::min(last * granule, extent)};
}

}  // namespace conclave
