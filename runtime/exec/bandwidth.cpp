#include "runtime/exec/bandwidth.h"

#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

namespace conclave::exec {
namespace {

/// One part per thread: part i of a node's threads, in the order of nodes.
template <class Body>
void for_parts(Executor& executor, const Slab& slab, Body&& body) {
    std::vector<int64_t> tasks, first;
    int64_t parts = 0;
    for (int node = 0; node < executor.nodes(); ++node) {
        first.push_back(parts);
        tasks.push_back(executor.threads(node));
        parts += executor.threads(node);
    }
    const size_t bytes = slab.bytes() / static_cast<size_t>(parts) / 4096 * 4096;
    executor.parallel_for(tasks, [&](int node, int64_t i) {
        body(slab.data() + static_cast<size_t>(first[node] + i) * bytes, bytes, first[node] + i);
    });
}

/// Four independent sums of 64 bytes a turn: more than one load per cycle needs no more.
uint64_t sum_of(const std::byte* p, size_t bytes) {
    uint64_t sum[32] = {};
    for (size_t i = 0; i < bytes; i += sizeof sum) {
        uint64_t v[32];
        std::memcpy(v, p + i, sizeof v);
        __builtin_prefetch(p + i + 4096);
        for (int j = 0; j < 32; ++j) sum[j] += v[j];
    }
    uint64_t total = 0;
    for (uint64_t s : sum) total ^= s;
    return total;
}

}  // namespace

void touch(Executor& executor, const Slab& slab) {
    for_parts(executor, slab, [](std::byte* p, size_t bytes, int64_t part) {
        std::memset(p, 1 + (part & 63), bytes);
    });
}

double read_once(Executor& executor, const Slab& slab) {
    std::vector<uint64_t> sums(1024 * 8);
    const auto begin = std::chrono::steady_clock::now();
    for_parts(executor, slab, [&](const std::byte* p, size_t bytes, int64_t part) {
        sums[static_cast<size_t>(part % 1024) * 8] = sum_of(p, bytes);
    });
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    // The sums must be used, or the reads would be optimised away.
    uint64_t all = 0;
    for (uint64_t s : sums) all ^= s;
    return all == 0x5eed ? seconds + 1e-12 : seconds;
}

}  // namespace conclave::exec
