// Where rows and columns of a matrix lie in a tensor whose blocks run over the flattened matrix.
#pragma once
#include <conclave/plugin.h>

namespace bitsandbytes {

/// Element (r, c) of a piece is in block (r * cols + c) / block, blocks lie one after the other:
/// they may begin and end inside rows, rows may share them, and the last may be short.
class FlatIndexer final : public conclave::sharding::ShardIndexer {
  public:
    static constexpr const char* kName = "bitsandbytes.flat";
    conclave::sharding::OffsetTable index(const conclave::quant::StoredPiece& piece,
                                          const conclave::quant::StoredRect& rect) const override;
};

}  // namespace bitsandbytes
