// Reads what a rank needs of a checkpoint, decodes and packs it into place, in parallel.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "quant/codec.h"
#include "quant/method.h"
#include "runtime/base/executor.h"
#include "runtime/comm/communicator.h"
#include "sharding/checkpoint/reader.h"
#include "sharding/ledger.h"
#include "sharding/shard_indexer.h"

namespace conclave::sharding {

/// One logical matrix of which this rank holds rows x cols.
struct MatrixItem {
    quant::MatrixSource logical;  ///< the matrix under the name that an unquantized model gives it
    quant::StoredMatrix stored;
    Interval rows, cols;                          ///< logical, of this rank; neither empty
    const quant::PackedMatrix* packed = nullptr;  ///< owned by the layer
};

/// One logical vector (norm weight, bias) of which this rank holds an interval, as f32.
struct VectorItem {
    std::string name;    ///< of the logical vector
    int64_t length = 0;  ///< of the logical vector
    std::string tensor;  ///< where it is stored, from element `offset` on
    int64_t offset = 0;
    Interval elements;     ///< logical, of this rank
    float* out = nullptr;  ///< owned by the layer
    int64_t rows = 0;      ///< > 0: a matrix [rows, length / rows]
};

struct LoadItems {
    std::vector<MatrixItem> matrices;
    std::vector<VectorItem> vectors;
    bool imagined = false;  ///< the weights are in no file: codecs generate them
};

struct LoadStats {
    uint64_t needed_bytes = 0;     ///< what this rank holds, as stored, stripes included
    uint64_t requested_bytes = 0;  ///< asked of the system
    uint64_t stripe_bytes = 0;     ///< of needed: read in whole rows because the cut is below 4 KiB
    uint64_t offset_tables = 0;    ///< made by shard indexers
    int64_t elements = 0;          ///< proved by the ledger to be written once
};

/// A cut that leaves less than this of each stored row reads whole rows and cuts in memory: 96-byte
/// reads run at 0.23 GB/s useful, 1 MiB reads at 5.9.
constexpr int64_t kStripeBelow = 4096;
/// Staging of one task: large enough that a read amortises its call, small enough that L2 still has
/// it when it is packed (512 KiB is no faster, 1 MiB 15 % slower).
constexpr int64_t kStagingBytes = 256 << 10;

/// Where what was read goes. Called concurrently, for every row and element of this rank once.
class WeightSink {
  public:
    virtual ~WeightSink() = default;
    /// `rows` of `piece` (of item.packed), decoded.
    virtual void put(const MatrixItem& item, const quant::PackedMatrix::Piece& piece, Interval rows,
                     const quant::CodeTile& tile) = 0;
    virtual void put(const VectorItem& item, std::span<const float> values) = 0;
};

/// Packs matrices into place and copies vectors into their layers.
class PackingSink final : public WeightSink {
  public:
    explicit PackingSink(quant::WeightBases bases) : bases_(bases) {}
    void put(const MatrixItem& item, const quant::PackedMatrix::Piece& piece, Interval rows,
             const quant::CodeTile& tile) override;
    void put(const VectorItem& item, std::span<const float> values) override;

  private:
    quant::WeightBases bases_;
};

/// Bytes that loading would need and the part of them that stripes add: from headers alone.
LoadStats predict_load(const Checkpoint& checkpoint, const IndexerRegistry& indexers,
                       const LoadItems& items);

/// done and total bytes of all ranks; called on rank 0.
using LoadProgressFn = std::function<void(uint64_t done, uint64_t total)>;

/// Collective. Throws the same error on all ranks if any rank fails; then nothing may be used.
LoadStats load_weights(const Checkpoint& checkpoint, const IndexerRegistry& indexers,
                       const LoadItems& items, WeightSink& sink, Executor& executor,
                       comm::Communicator& comm, const LoadProgressFn& progress);

}  // namespace conclave::sharding
