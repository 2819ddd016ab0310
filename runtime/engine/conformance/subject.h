// Stored matrices to try codecs and indexers with: samples of a format, or those of a checkpoint.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "quant/quantization_config.h"
#include "runtime/engine/conformance/memory.h"
#include "sharding/checkpoint/reader.h"
#include "sharding/shard_indexer.h"

namespace conclave::engine::conformance {

/// Tensors whose bytes can be had from any place on.
class Tensors : public quant::TensorLookup {
  public:
    virtual std::vector<std::string> names() const = 0;
    virtual uint64_t bytes(const std::string& name) const = 0;  ///< 0: no such tensor
    virtual void read_at(const std::string& name, uint64_t offset,
                         std::span<std::byte> out) const = 0;
    std::vector<std::byte> read(const std::string& name, uint64_t max_bytes) const override;
};

/// Bytes that a tensor of this header has; 0 for a type that no file can state.
uint64_t header_bytes(const quant::TensorHeader& header);

class SampleTensors final : public Tensors {
  public:
    explicit SampleTensors(std::vector<quant::StoredSample::Tensor> tensors);
    std::optional<quant::TensorHeader> header(const std::string& name) const override;
    std::vector<std::string> names() const override;
    uint64_t bytes(const std::string& name) const override;
    void read_at(const std::string& name, uint64_t offset, std::span<std::byte> out) const override;

  private:
    const quant::StoredSample::Tensor* find(const std::string& name) const;
    std::vector<quant::StoredSample::Tensor> tensors_;
};

/// Those of a checkpoint that belong to one matrix: `names`.
class CheckpointTensors final : public Tensors {
  public:
    CheckpointTensors(std::shared_ptr<const sharding::Checkpoint> checkpoint,
                      std::vector<std::string> names);
    std::optional<quant::TensorHeader> header(const std::string& name) const override;
    std::optional<std::string> metadata(const std::string& key) const override;
    std::vector<std::string> names() const override { return names_; }
    uint64_t bytes(const std::string& name) const override;
    void read_at(const std::string& name, uint64_t offset, std::span<std::byte> out) const override;

  private:
    std::shared_ptr<const sharding::Checkpoint> checkpoint_;
    std::vector<std::string> names_;
};

/// One matrix, described.
struct Subject {
    std::string name;  ///< "sample of 3 x 40 weights, seed 7"
    const quant::QuantizationFormat* format = nullptr;
    Json config;  ///< its quantization_config
    quant::MatrixSource source;
    std::shared_ptr<const Tensors> tensors;
    quant::StoredMatrix matrix;
    std::vector<float> weights;  ///< [n, k]; empty: not known
    const sharding::IndexerRegistry* indexers = nullptr;
};

/// Where subjects come from.
struct Subjects {
    /// Samples of about n x k; empty: `fixed`.
    std::function<std::shared_ptr<const Subject>(int64_t n, int64_t k, uint64_t seed)> sample;
    std::vector<std::shared_ptr<const Subject>> fixed;
    bool empty() const { return !sample && fixed.empty(); }
};

/// Samples of a format; none where it has no `sample`. Throw Found, and what the format throws.
Subjects samples_of(const quant::QuantizationFormat& format,
                    const sharding::IndexerRegistry& indexers, bool described);

/// What is wrong with a description of `source`, whose tensors are these; empty: nothing.
std::string description_fault(const quant::StoredMatrix& matrix, const quant::MatrixSource& source,
                              const Tensors& tensors, const sharding::IndexerRegistry& indexers);

/// needs(), inside the piece. Throws Found.
quant::StoredRect needs_of(const Subject& s, size_t piece, Interval n, Interval k);

/// What rows n x columns k of a matrix need, and nothing else, in memory.
struct Staged {
    std::vector<GuardedBytes> memory;
    std::vector<sharding::OffsetTable> tables;
    std::vector<quant::StagedRect> rects;
};
/// `gap`: bytes between rows, of pieces without an indexer. Throws Found.
Staged stage(const Subject& s, Interval n, Interval k, std::byte poison, int64_t gap);

/// Numbers of rows x cols, and what they are made of.
struct Decoded {
    Interval n, k;
    std::vector<float> values, scales, zeros;
    std::vector<uint32_t> codes;
};
/// Decodes rows `n` of what is staged. Throws Found for a tile that cannot be, and for writes
/// beside the scratch.
Decoded decode(const Subject& s, Interval n, Interval k, const Staged& staged, std::byte poison);

/// Both, with poisons of no meaning.
Decoded decode(const Subject& s, Interval n, Interval k);

/// The first element in which `part` differs from `all`, which contains it; empty: none.
std::string difference(const Subject& s, const Decoded& part, const Decoded& all,
                       const std::string& part_name, const std::string& all_name);

}  // namespace conclave::engine::conformance
