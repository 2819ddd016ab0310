// The memory that a rank's packed weights live in: one slab per NUMA node, reserved while layers
// are declared, mapped once when all are known.
#pragma once
#include <cstddef>
#include <vector>

#include "quant/method.h"
#include "runtime/exec/slab.h"

namespace conclave::sharding {

class WeightStore final : public quant::WeightReservation {
  public:
    /// `shares`: per node, threads of the node / threads of the rank.
    explicit WeightStore(std::vector<double> shares);

    int nodes() const override { return static_cast<int>(shares_.size()); }
    double node_share(int node) const override { return shares_[node]; }
    size_t reserve(int node, size_t bytes) override;

    size_t reserved_bytes() const;
    /// Maps the slabs; pages become resident as they are packed. Throws kResource.
    void map();
    quant::WeightBases bases(uint64_t* bytes_read = nullptr) const { return {bases_, bytes_read}; }
    exec::PageKind pages() const;

  private:
    std::vector<double> shares_;
    std::vector<size_t> used_;
    std::vector<exec::Slab> slabs_;
    std::vector<std::byte*> bases_;
};

}  // namespace conclave::sharding
