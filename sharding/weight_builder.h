// Where models declare their weights. Each declaration finds the stored tensors, asks the shard
// plan which part is this rank's, makes the layer with memory reserved, and notes what is to be
// loaded. Nothing is allocated or read: `plan` builds models for any rank from headers alone.
//
// A layer must outlive loading: what is to be loaded points into it.
//
// The shape of a declaration is the loader of the weight: column, merged column (gate, up), qkv,
// row, replicated, vocabulary, experts (w13, w2). None of them knows a checkpoint format.
#pragma once
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "quant/quantization_config.h"
#include "sharding/checkpoint/reader.h"
#include "sharding/embedding.h"
#include "sharding/loader.h"
#include "sharding/parallel_linear.h"
#include "sharding/shard_plan.h"

namespace conclave::sharding {

/// What building depends on. References must outlive the builder.
struct BuildContext {
    const Checkpoint& checkpoint;
    const quant::QuantizationConfig& format;
    const quant::KernelRegistry& kernels;
    CpuFeatures cpu;
    quant::Activations activations = quant::Activations::kAuto;
    bool deterministic = false;
    int rank = 0;
    quant::WeightReservation& memory;
    /// Weights of this encoding, generated, instead of stored ones (--load-format dummy).
    std::optional<quant::Imagined> imagined = {};
};

/// The kernel of one matrix, and why others were refused.
struct KernelRecord {
    std::string layer;  ///< "model.layers.0.self_attn.q_proj"
    quant::Encoding encoding;
    quant::ActivationRule rule;
    quant::KernelChoice choice;
    bool follows_policy = true;  ///< its rule may be another under another --activations
};

/// Tensors that a model leaves unread, by pattern.
struct IgnoredTensors {
    std::string pattern;
    int64_t count = 0;
    uint64_t bytes = 0;
};

/// The experts of one layer, as a model's tensors name them.
struct ExpertSource {
    std::string prefix;  ///< "model.layers.0.mlp.experts": prefix.E.gate
    std::string fused;   ///< where stored as 3-D tensors: fused.gate_up_proj, fused.down_proj
    std::string gate = "gate_proj", up = "up_proj", down = "down_proj";
    int64_t experts = 0, width = 0, hidden = 0;
};

struct ExpertShards {
    std::unique_ptr<quant::FusedMoeWeights> weights;
    std::shared_ptr<const quant::FusedMoeMethod> method;
    Interval experts;  ///< of this rank
    Cut width;         ///< of the ranks that share this rank's experts: columns of w13's output
    Cut hidden;        ///< of the same ranks: columns of w2's output
};

class WeightBuilder {
  public:
    WeightBuilder(const BuildContext& context, RankGrid grid);

    /// prefix.name for every rank's rows [n] of a matrix [n, k].
    [[nodiscard]] ParallelLinear column_parallel(const std::string& stem, int64_t n, int64_t k);
    /// prefix.names[i], each [n, k], or all of them stored as prefix.fused.
    [[nodiscard]] ParallelLinear merged_column_parallel(const std::string& prefix,
                                                        const std::vector<std::string>& names,
                                                        const std::string& fused, int64_t n,
                                                        int64_t k, bool bias);
    /// prefix.{q,k,v}_proj or prefix.qkv_proj, by heads of `d`.
    [[nodiscard]] ParallelLinear qkv_parallel(const std::string& prefix, int64_t heads,
                                              int64_t kv_heads, int64_t d, int64_t k, bool bias);
    /// stem [n, k], its input cut by `input`.
    [[nodiscard]] RowParallelLinear row_parallel(const std::string& stem, int64_t n, int64_t k,
                                                 Cut input, bool bias);
    /// The first of `stems` that is there, whole on every rank; inputs stay f32 whatever
    /// --activations says (routers).
    [[nodiscard]] ParallelLinear replicated(const std::vector<std::string>& stems, int64_t n,
                                            int64_t k);
    [[nodiscard]] VocabParallelEmbedding vocab_parallel_embedding(const std::string& stem,
                                                                  int64_t vocab, int64_t width);
    /// w13 and w2 of this rank's experts; `generic` serves where the format has no own method.
    [[nodiscard]] ExpertShards experts(const ExpertSource& source,
                                       std::shared_ptr<const quant::FusedMoeMethod> generic);
    /// Each of the `count` matrices [n, k] of a 3-D parameter, its rows over ranks.
    [[nodiscard]] std::vector<ParallelLinear> stacked(const std::string& stem, int64_t count,
                                                      int64_t n, int64_t k);
    /// [rows, n] numbers, whole on every rank.
    std::vector<float> matrix_of_biases(const std::string& tensor, int64_t rows, int64_t n);
    /// A vector whole on every rank.
    std::vector<float> vector(const std::string& tensor, int64_t n);

    /// Throws kBadContent for tensors that nothing uses, unless a glob of `ignorable` ('*' stands
    /// for anything) matches; returns what was ignored.
    std::vector<IgnoredTensors> finish(const std::vector<std::string>& ignorable) const;

    ShardPlan& plan() { return plan_; }
    const ShardPlan& plan() const { return plan_; }
    const RankGrid& grid() const { return plan_.grid(); }
    int rank() const { return context_.rank; }
    bool deterministic() const { return context_.deterministic; }
    const LoadItems& items() const { return items_; }
    const std::vector<KernelRecord>& kernels() const { return kernels_; }

  private:
    /// One part of a linear: where it may be stored and how it is cut.
    struct PartRequest {
        std::string name;
        std::vector<quant::MatrixSource> stored;  ///< alternatives
        Cut rows, cols;
        bool replicated = false;
    };
    struct Resolved {
        quant::LinearDescriptor descriptor;
        std::vector<quant::MatrixSource> logical;
        std::vector<quant::StoredMatrix> stored;
        std::vector<std::pair<Interval, Interval>> local;  ///< rows, cols of this rank, per part
    };

    std::shared_ptr<const quant::Grouping> grouping(const quant::StoredMatrix& matrix,
                                                    Interval cols);
    /// `local`: this rank holds some of it.
    quant::StoredMatrix resolve(const std::vector<quant::MatrixSource>& alternatives,
                                bool quantizable, bool local);
    quant::MatrixLayout layout_of(const quant::StoredMatrix& matrix, Interval cols);
    Resolved resolve_linear(const std::vector<PartRequest>& parts, bool follow_policy);
    void record(const std::string& layer, const quant::LinearDescriptor& descriptor,
                std::vector<quant::KernelChoice> choices, bool follows_policy = true);
    void note_items(const Resolved& resolved, const std::vector<quant::PackedMatrix>& packed);
    void make(const std::string& layer, const std::vector<PartRequest>& parts, bool follow_policy,
              std::unique_ptr<quant::LinearWeights>& weights,
              std::shared_ptr<const quant::LinearMethod>& method);
    /// Notes that `out` (elements.size() floats) is to be read from the first tensor that exists.
    struct VectorSource {
        std::string tensor;
        int64_t length = 0, offset = 0;
        int64_t rows = 0;  ///< > 0: stored as [rows, length / rows]
    };
    /// Biases of a column-parallel linear whose parts, of these sizes and cuts, may be fused.
    void add_biases(ParallelLinear& linear, const std::string& prefix,
                    const std::vector<PartRequest>& parts, const std::string& fused);
    void vector_into(const std::vector<VectorSource>& alternatives, Interval elements, float* out);

    BuildContext context_;
    ShardPlan plan_;
    LoadItems items_;
    std::vector<KernelRecord> kernels_;
    /// Some quantizers write a bias of zeros for matrices that have none.
    bool zero_bias(const StoredTensor& tensor) const;

    std::unordered_set<std::string> used_, stems_;
    std::vector<std::shared_ptr<const quant::Grouping>> groupings_;
    std::shared_ptr<const std::vector<float>> column_scale_;  ///< the last one
    std::shared_ptr<const quant::LinearMethod> generic_;
};

}  // namespace conclave::sharding
