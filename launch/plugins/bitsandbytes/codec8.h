// int8 rows with a scale each.
#pragma once
#include <conclave/plugin.h>

namespace bitsandbytes {

/// Pieces: codes I8 [n, k] and SCB F32 [n], both sliced as they lie. Codes become unsigned: 128 is
/// their zero.
class Codec8 final : public conclave::quant::Codec {
  public:
    const char* name() const override { return "bitsandbytes int8"; }
    conclave::quant::StoredRect needs(const conclave::quant::StoredMatrix& m, size_t piece,
                                      conclave::Interval n, conclave::Interval k) const override;
    size_t scratch_bytes(const conclave::quant::StoredMatrix& m, conclave::Interval n,
                         conclave::Interval k) const override;
    conclave::quant::CodeTile decode(const conclave::quant::StoredMatrix& m, conclave::Interval n,
                                     conclave::Interval k,
                                     std::span<const conclave::quant::StagedRect> staged,
                                     std::byte* scratch) const override;
};

}  // namespace bitsandbytes
