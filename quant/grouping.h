// How the groups of an integer encoding lie over the columns that a rank holds, and in which order
// kernels walk those columns.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/interval.h"

namespace conclave::quant {

/// Kernels take the columns of a run this many at a time; packed runs are padded to it.
constexpr int64_t kRunGranule = 8;
/// Columns that share an activation scale under the int8 rule. A multiple of kRunGranule.
constexpr int64_t kBlockColumns = 32;

/// Neighbouring columns, in kernel order, of one group.
struct Run {
    int32_t columns = 0;
    int32_t group = 0;  ///< the stored group's number

    bool operator==(const Run&) const = default;
};

struct Grouping {
    std::vector<Run> runs;
    /// Kernel column c is the rank's column order[c]; empty: c itself.
    std::vector<int32_t> order;
    /// Columns of each activation block: every run in turn in blocks of 32 and what is left.
    std::vector<uint8_t> blocks;
    int64_t columns = 0;  ///< sum over runs
    int64_t padded = 0;   ///< sum over runs, each rounded up to kRunGranule

    bool operator==(const Grouping&) const = default;
    /// Whether the same int8 input serves both.
    bool same_input(const Grouping& other) const {
        return order == other.order && blocks == other.blocks;
    }
};

/// Columns [k.begin, k.end) of a matrix whose column c is of group c / group (0: all of group 0).
Grouping uniform_grouping(Interval k, int64_t group);
/// The rank's column c is of group `group_of[c]`: sorted by group, stably. Uniform where sorted
/// already.
Grouping permuted_grouping(std::span<const int32_t> group_of);

/// A row of int8 input under a grouping: `padded` codes in kernel order (the padding zero), then at
/// int8_scales_at() one f32 scale per block, then one f32 per block: the sum of its codes.
/// Rows are 64-byte aligned.
constexpr int64_t int8_scales_at(const Grouping& g) { return round_up(g.padded, 64); }
inline int64_t int8_row_bytes(const Grouping& g) {
    return round_up(int8_scales_at(g) + static_cast<int64_t>(g.blocks.size()) * 8, 64);
}

/// A row of int8 input with one scale and one zero: `padded` codes in kernel order (the padding
/// zero), then at int8_scales_at() the scale (f32), the zero (f32, a whole number), and one int32
/// per run: the sum of its codes. Rows are 64-byte aligned. x = (code - zero) * scale.
inline int64_t int8_whole_row_bytes(const Grouping& g) {
    return round_up(int8_scales_at(g) + 8 + static_cast<int64_t>(g.runs.size()) * 4, 64);
}

}  // namespace conclave::quant
