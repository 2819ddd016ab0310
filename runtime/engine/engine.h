// The engine of one rank. See runtime/api/conclave.hpp for how a program uses it.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/log.h"
#include "runtime/base/workspace.h"
#include "runtime/comm/communicator.h"
#include "runtime/engine/model.h"
#include "runtime/engine/scheduler.h"
#include "runtime/engine/types.h"
#include "runtime/exec/arenas.h"
#include "sharding/weight_store.h"

namespace conclave::engine {

struct ModelSetup;
/// Changes what set_up_model() found, on every rank alike: to measure a part of a model.
using AdjustSetup = std::function<void(ModelSetup&)>;

class Engine {
  public:
    /// Collective. Loads the model; the same error on all ranks if any fails.
    Engine(const EngineOptions& options, std::shared_ptr<comm::Communicator> comm,
           const AdjustSetup& adjust = {});
    ~Engine();

    comm::Communicator& comm() const { return *comm_; }
    const ModelShape& shape() const { return shape_; }
    const LoadReport& load_report() const { return report_; }
    const std::string& description() const { return description_; }
    const StepLimits& limits() const { return limits_; }
    EngineStats stats() const;

    // Rank 0.
    SequenceId add(SequenceRequest request);
    void cancel(SequenceId id) { scheduler_->cancel(id); }
    bool has_work() const { return scheduler_->has_work(); }
    std::vector<TokenOutput> step();
    void shutdown();
    // Other ranks.
    void follow();
    bool follow_step();

  private:
    /// What every rank does in a step; returns logits or candidates to rank 0.
    struct Gathered;
    void load(const EngineOptions& options, const AdjustSetup& adjust);
    void size_cache(const EngineOptions& options, quant::CodeType kv_dtype);
    void run(const StepMessage& message, Gathered& gathered);
    void gather(const float* logits, int64_t rows, uint32_t candidates, Gathered& gathered);
    uint32_t candidates_wanted() const;
    void emit(const Gathered& gathered, std::vector<TokenOutput>& out);
    int32_t choose(const Sequence& s, const Gathered& gathered, int64_t row) const;
    template <class Body>
    void guarded(Body&& body);

    std::shared_ptr<comm::Communicator> comm_;
    std::unique_ptr<comm::Communicator> expert_tp_;
    Log log_;
    double deadline_ = 0, idle_deadline_ = 0;
    ModelShape shape_;
    std::vector<int32_t> eos_;
    CpuFeatures cpu_;
    std::unique_ptr<exec::Arenas> executor_;
    std::unique_ptr<sharding::WeightStore> weights_;
    std::unique_ptr<Model> model_;
    std::unique_ptr<KvCache> cache_;
    Workspace workspace_;
    StepLimits limits_;
    std::unique_ptr<StepTables> tables_;
    std::unique_ptr<Scheduler> scheduler_;  ///< rank 0
    LoadReport report_;
    EngineStats stats_;
    std::string description_;
    bool down_ = false;
};

/// Warns through `log` of what a layout leaves without work: "rank 3 holds no query heads".
std::vector<std::string> empty_rank_notices(const ModelShape& shape,
                                            const sharding::RankGrid& grid);

/// What choosing a layout depends on.
sharding::ExpertShape expert_shape(const ModelShape& shape);

}  // namespace conclave::engine
