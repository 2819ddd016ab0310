// How a layer's weights are made and applied. Almost every format is served by the generic methods
// (sharding/kernel_linear_method, moe/kernel_moe_method), which are driven by descriptors; a method
// of its own exists only for arithmetic that no descriptor expresses.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quant/activation.h"
#include "quant/encoding.h"
#include "quant/kernel.h"
#include "runtime/base/executor.h"
#include "runtime/base/interval.h"

namespace conclave::quant {

/// Where packed weights are: one base address per NUMA node of the rank, resolved once per step, so
/// that an epoch of weights can be exchanged under a running engine.
struct WeightBases {
    std::span<std::byte* const> node;
    /// Where to add the packed bytes that a step reads; for figures. May be null; rank's thread.
    uint64_t* bytes_read = nullptr;

    std::byte* operator[](int n) const { return node[n]; }
    void count(uint64_t bytes) const {
        if (bytes_read) *bytes_read += bytes;
    }
};

/// A matrix of this rank, packed for a kernel, its rows divided over the NUMA nodes.
struct PackedMatrix {
    struct Piece {
        int node = 0;
        Interval rows;      ///< of the local matrix; packed as a matrix of its own
        size_t offset = 0;  ///< from the node's base; 64-byte aligned
    };
    const Kernel* kernel = nullptr;
    int64_t n = 0;
    MatrixLayout layout;
    std::vector<Piece> pieces;

    /// What a product with it reads.
    uint64_t bytes() const { return layout.k > 0 ? kernel->packed_bytes(n, layout) : 0; }
};

/// The weights of one linear layer on this rank.
struct LinearWeights {
    LinearDescriptor descriptor;
    std::vector<PackedMatrix> parts;  ///< one per descriptor part
};

/// Reserves memory for weights; what is reserved exists only after all layers were declared.
class WeightReservation {
  public:
    virtual ~WeightReservation() = default;
    virtual int nodes() const = 0;
    /// Share of the work, and so of the rows, that a node should hold: its threads / all threads.
    virtual double node_share(int node) const = 0;
    /// Returns the offset from the node's base, 64-byte aligned.
    virtual size_t reserve(int node, size_t bytes) = 0;
};

/// What create_weights may use.
struct MethodContext {
    const KernelRegistry& kernels;
    CpuFeatures cpu;
    WeightReservation& memory;
    std::string layer;  ///< full name, for errors
    /// The choice per part, for `plan`; may be null.
    std::vector<KernelChoice>* choices = nullptr;
};

/// Rows [0, rows) of each part's output: part p at out[p] with row stride stride[p] (floats).
struct LinearOutput {
    std::span<float* const> out;
    std::span<const int64_t> stride;
};

class QuantizeMethod {
  public:
    virtual ~QuantizeMethod() = default;
    virtual const char* name() const = 0;
};

class LinearMethod : public QuantizeMethod {
  public:
    /// Chooses kernels for weights.descriptor and reserves memory: fills weights.parts. Throws
    /// kUnsupported with every kernel's reasons when none can serve.
    virtual void create_weights(LinearWeights& weights, const MethodContext& context) const = 0;
    virtual void process_weights_after_loading(LinearWeights&, WeightBases, Executor&) const {}
    virtual void apply(const LinearWeights& weights, WeightBases bases, PreparedInput& x,
                       const LinearOutput& out, Executor& executor) const = 0;
};

/// The descriptors of an MoE layer's experts.
struct FusedMoeQuantConfig {
    LinearDescriptor w13, w2;
};

/// The experts of one layer on this rank. Expert e of the rank is w13[e], w2[e].
struct FusedMoeWeights {
    std::vector<LinearWeights> w13;  ///< parts: gate, up
    std::vector<LinearWeights> w2;   ///< part: down
};

/// Which input rows go to which local expert: slots of expert e are [offsets[e], offsets[e + 1]),
/// slot s takes row token[s] of the input.
struct DispatchView {
    std::span<const int64_t> offsets;
    std::span<const int32_t> token;
    int64_t slots() const { return offsets.empty() ? 0 : offsets.back(); }
};

/// Experts as two task sets with one join between, in which the layer may exchange what ranks hold
/// of the intermediate.
class FusedMoeMethod : public QuantizeMethod {
  public:
    virtual void create_weights(FusedMoeWeights& weights, const MethodContext& context) const = 0;
    virtual void process_weights_after_loading(FusedMoeWeights&, WeightBases, Executor&) const {}
    /// intermediate[s] = act(gate x) * (up x) for each slot; row stride `stride` floats.
    virtual void apply_w13(const FusedMoeWeights& weights, WeightBases bases, PreparedInput& x,
                           const DispatchView& dispatch, float* intermediate, int64_t stride,
                           const VectorOps& ops, Executor& executor) const = 0;
    /// out[s] = down intermediate[s] for each slot.
    virtual void apply_w2(const FusedMoeWeights& weights, WeightBases bases,
                          PreparedInput& intermediate, const DispatchView& dispatch, float* out,
                          int64_t stride, Executor& executor) const = 0;
};

}  // namespace conclave::quant
