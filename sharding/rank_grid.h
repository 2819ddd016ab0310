// How the ranks of an engine share the work: attention and dense layers are cut over all of them,
// experts over a grid of tensor-parallel x expert-parallel.
#pragma once
#include <cstdint>
#include <string>

namespace conclave::sharding {

/// Ranks in a row share an expert: rank r is part r % expert_tp of expert group r / expert_tp.
struct RankGrid {
    int ranks = 1;
    int expert_tp = 1;  ///< ranks that share each expert (its width is cut)
    int expert_ep = 1;  ///< groups of whole experts

    int tp_index(int rank) const { return rank % expert_tp; }
    int ep_index(int rank) const { return rank / expert_tp; }
    bool operator==(const RankGrid&) const = default;
    std::string to_string() const;  ///< "tensor parallel 4, experts 2x2 (TPxEP)"
};

/// What the choice of an expert layout depends on.
struct ExpertShape {
    int64_t experts = 0, top_k = 0;  ///< experts == 0: a dense model
    int64_t width = 0;               ///< intermediate channels of one expert
    int64_t width_granule = 32;
};

/// The most weight that any rank reads for one decoded token, in units of one whole expert, when
/// the top_k experts fall on groups at random: (expected largest number of active experts in a
/// group) x (largest share of an expert's width).
double expert_cost(const ExpertShape& shape, int expert_tp, int expert_ep);

struct LayoutChoice {
    RankGrid grid;
    std::string reason;   ///< why, with the costs compared; or a notice for dense models
    bool notice = false;  ///< an explicit layout was asked of a dense model and does not apply
};

/// `layout`: auto, tp, ep, or TPxEP ("2x4"). Throws kUsage when it is none of these or its product
/// is not `ranks`.
LayoutChoice choose_grid(const std::string& layout, int ranks, const ExpertShape& shape);

}  // namespace conclave::sharding
