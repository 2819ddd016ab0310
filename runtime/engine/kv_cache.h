// What attention layers remember: paged, in blocks of a fixed number of tokens that all layers
// number alike. Each layer states what it keeps; a latent cache, a window or an 8-bit cache is
// another KvSpec, not another cache.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "quant/encoding.h"
#include "runtime/exec/slab.h"

namespace conclave::engine {

/// Tokens of a block. 32 keys of 128 bf16 are 8 KiB a head: long enough to stream, short enough
/// that a sequence wastes 16 tokens on average.
constexpr int64_t kBlockTokens = 32;

/// One array that a layer keeps per token.
struct KvStream {
    std::string name;   ///< "k", "v"
    int64_t heads = 0;  ///< of this rank
    int64_t width = 0;  ///< elements per token and head
};

struct KvSpec {
    std::vector<KvStream> streams;
    quant::CodeType dtype = quant::CodeType::kF32;
    int64_t window = 0;       ///< keys a query sees; 0: all
    bool replicated = false;  ///< the same on all ranks, rather than cut by head
    size_t block_bytes() const;
};

class KvCache {
  public:
    KvCache() = default;
    /// `blocks` blocks for every layer. Pages become resident as they are written.
    KvCache(std::vector<KvSpec> layers, int64_t blocks);

    int64_t blocks() const { return blocks_; }
    size_t bytes() const { return slab_.bytes(); }
    const KvSpec& spec(int64_t layer) const { return layers_[layer]; }
    /// Token 0 of `block` in a stream and head of a layer; tokens follow `width` elements apart.
    std::byte* at(int64_t layer, int64_t stream, int64_t head, int32_t block) const;

  private:
    std::vector<KvSpec> layers_;
    std::vector<size_t> offsets_;  ///< of each layer
    int64_t blocks_ = 0;
    exec::Slab slab_;
};

}  // namespace conclave::engine
