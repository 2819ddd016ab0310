#include "runtime/engine/kv_cache.h"

#include <algorithm>

#include "runtime/base/checked.h"
#include "runtime/base/interval.h"

namespace conclave::engine {

size_t KvSpec::block_bytes() const {
    int64_t elements = 0;
    for (const KvStream& s : streams) elements += s.heads * s.width * kBlockTokens;
    return static_cast<size_t>(round_up(elements * (quant::code_bits(dtype) / 8), 64));
}

KvCache::KvCache(std::vector<KvSpec> layers, int64_t blocks)
    : layers_(std::move(layers)), blocks_(blocks) {
    uint64_t total = 0;
    for (const KvSpec& s : layers_) {
        offsets_.push_back(total);
        total = checked_add<uint64_t>(
            total,
            checked_mul<uint64_t>(s.block_bytes(), static_cast<uint64_t>(blocks), "KV cache"),
            "KV cache");
    }
    slab_ = exec::Slab(std::max<uint64_t>(total, 64));
}

std::byte* KvCache::at(int64_t layer, int64_t stream, int64_t head, int32_t block) const {
    const KvSpec& s = layers_[layer];
    int64_t element = 0;
    for (int64_t i = 0; i < stream; ++i)
        element += s.streams[i].heads * s.streams[i].width * kBlockTokens;
    element += head * s.streams[stream].width * kBlockTokens;
    return slab_.data() + offsets_[layer] + static_cast<size_t>(block) * s.block_bytes() +
           element * (quant::code_bits(s.dtype) / 8);
}

}  // namespace conclave::engine
