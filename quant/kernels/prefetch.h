// Software prefetches of packed weights. Internal linkage.
#pragma once
#include <cstddef>
#include <cstdint>

namespace conclave::quant {
namespace {

/// Vector products for each 64 bytes of weights from which on a kernel asks for weights ahead. With
/// fewer it is as fast as memory, and the hardware's own prefetchers serve it best; with more, each
/// line waits for arithmetic and they fall behind. On Zen 4, shares of the read rate, left to the
/// hardware and prefetched: of one product 101 to 108 and 70 to 77 %, two 84 to 97 and 68 to 78,
/// three 47 to 68 and 71 to 77, four 56 to 80 and 69 to 78, six 45 and 82 to 88, eight 29 to 43 and
/// 62 to 74. (Prefetches into L1, of which few may be under way: half.)
constexpr int kManyProducts = 3;

/// Into L2: the 64 or 128 bytes from p on, which may be anywhere.
template <int Products, int64_t Bytes>
[[gnu::always_inline]] inline void prefetch(const std::byte* p) {
    if constexpr (Products >= kManyProducts) {
        __builtin_prefetch(p, 0, 2);
        if constexpr (Bytes > 64) __builtin_prefetch(p + 64, 0, 2);
    }
}

}  // namespace
}  // namespace conclave::quant
