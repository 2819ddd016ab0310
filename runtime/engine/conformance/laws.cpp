#include "runtime/engine/conformance/laws.h"

#include "runtime/engine/conformance/indexer_laws.h"
#include "runtime/engine/conformance/kernel_laws.h"

namespace conclave::engine::conformance {

std::optional<Broken> check_indexer(const sharding::ShardIndexer& indexer,
                                    const std::vector<quant::StoredPiece>& examples, uint64_t seed,
                                    int64_t cases) {
    Trial trial;
    trial.seed = seed, trial.cases = cases;
    for (const IndexerLaw& law : indexer_laws()) {
        Outcome out = search_indexer(law, indexer, indexed_cases(examples, {}, trial), trial);
        if (out.broken) return out.broken;
    }
    return std::nullopt;
}

std::optional<Broken> check_kernel(const quant::Kernel& kernel, uint64_t seed, int64_t cases) {
    Trial trial;
    trial.seed = seed, trial.cases = cases;
    for (const KernelLaw& law : kernel_laws()) {
        Outcome out = search_kernel(law, kernel, trial);
        if (out.broken) return out.broken;
    }
    return std::nullopt;
}

}  // namespace conclave::engine::conformance
