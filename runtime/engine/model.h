// A model over ranks, and the table of architectures that are served.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "runtime/engine/batch.h"
#include "runtime/engine/kv_cache.h"
#include "runtime/engine/model_config.h"
#include "sharding/weight_builder.h"

namespace conclave::engine {

class Model {
  public:
    virtual ~Model() = default;
    /// What each layer keeps per token on this rank.
    virtual std::vector<KvSpec> kv_specs(quant::CodeType dtype) const = 0;
    /// Vocabulary rows of each rank: columns of its logits.
    virtual const std::vector<Interval>& vocab_cut() const = 0;
    /// logits [batch.logit_rows, own vocabulary rows], dense. Collective.
    virtual void forward(sharding::StepContext& context, const StepBatch& batch, KvCache& cache,
                         float* logits) const = 0;
};

/// One architecture: a file in models/ defines it, a line in models.inc lists it.
struct Architecture {
    std::string name;        ///< as config.json's architectures[0] says
    std::string model_type;  ///< as config.json's model_type says
    ModelShape (*shape)(const Json& config, const std::string& file);
    std::unique_ptr<Model> (*build)(const ModelShape& shape, sharding::WeightBuilder& builder);
    /// Tensors that may be there and are not read; '*' stands for anything.
    std::vector<std::string> ignorable;
    /// Why it cannot run, where only its weights are known; empty: it can.
    std::string unserved = {};
};

/// Tensors that any decoder's checkpoint may have and that are not read.
std::vector<std::string> standard_ignorable();

const std::vector<Architecture>& architectures();
/// By architecture name, or by model_type where the config states no architecture. Throws
/// kUnsupported naming those that are served.
const Architecture& find_architecture(const Json& config, const std::string& file);

}  // namespace conclave::engine
