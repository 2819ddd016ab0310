// 4-bit codes whose blocks run over the flattened tensor.
#pragma once
#include <conclave/plugin.h>

#include <array>
#include <optional>

namespace bitsandbytes {

/// Double quantization: absmax = map[byte] * nested_absmax + offset, product and sum rounded.
struct Nested {
    std::array<float, 256> map{};
    int shift = 8;  ///< 2^shift bytes of absmax share a nested_absmax
    float offset = 0;
};

/// Pieces, all under the flat indexer and seen as the matrix itself: codes, absmax and, nested,
/// nested_absmax. Element i of the flattened tensor has nibble i, the high one of a byte first.
class Codec4 final : public conclave::quant::Codec {
  public:
    /// Blocks of 2^shift elements.
    Codec4(int shift, std::optional<Nested> nested) : shift_(shift), nested_(nested) {}

    const char* name() const override { return "bitsandbytes 4 bit"; }
    conclave::quant::StoredRect needs(const conclave::quant::StoredMatrix& m, size_t piece,
                                      conclave::Interval n, conclave::Interval k) const override;
    size_t scratch_bytes(const conclave::quant::StoredMatrix& m, conclave::Interval n,
                         conclave::Interval k) const override;
    conclave::quant::CodeTile decode(const conclave::quant::StoredMatrix& m, conclave::Interval n,
                                     conclave::Interval k,
                                     std::span<const conclave::quant::StagedRect> staged,
                                     std::byte* scratch) const override;

  private:
    /// Of row `row`: absmax of each run of `run` columns, or of what of it is among columns k.
    void scales_of(std::span<const conclave::quant::StagedRect> staged, int64_t row, int64_t run,
                   conclave::Interval k, float* out) const;

    int shift_;
    std::optional<Nested> nested_;
};

}  // namespace bitsandbytes
