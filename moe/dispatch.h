// From chosen experts to slots: counts, offsets, permutation. A pure function.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "quant/method.h"
#include "runtime/base/interval.h"

namespace conclave::moe {

/// One slot per (token, choice) whose expert is in a range; slots are ordered by expert, then by
/// token, then by choice.
struct Dispatch {
    std::vector<int64_t> offsets;  ///< slots of the range's expert e: [offsets[e], offsets[e + 1])
    std::vector<int32_t> token;    ///< [slots]
    std::vector<int64_t> slot_of;  ///< [tokens * top_k]; -1: another range's expert

    int64_t slots() const { return offsets.back(); }
    quant::DispatchView view() const { return {offsets, token}; }
};

/// `ids` [tokens, top_k], each in [0, all experts).
Dispatch dispatch(std::span<const int32_t> ids, int64_t top_k, Interval experts);

}  // namespace conclave::moe
