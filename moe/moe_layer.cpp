#include "moe/moe_layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "moe/dispatch.h"
#include "moe/kernel_moe_method.h"
#include "sharding/collectives.h"

namespace conclave::moe {
namespace {

using sharding::StepContext;

/// out[t] = sum over j ascending of weights[t, j] * row(t, j); row may be null (not held here).
template <class Row>
void combine(StepContext& context, int64_t tokens, int64_t top_k, const float* weights,
             int64_t width, float* out, Row&& row) {
    context.executor.parallel_for(tokens, [&](int64_t t) {
        float* o = out + t * width;
        std::memset(o, 0, static_cast<size_t>(width) * sizeof(float));
        for (int64_t j = 0; j < top_k; ++j)
            if (const float* y = row(t, j)) context.ops.axpy(weights[t * top_k + j], y, width, o);
    });
}

std::vector<int32_t> experts_of_slots(const Dispatch& d) {
    std::vector<int32_t> expert(static_cast<size_t>(d.slots()));
    for (size_t e = 0; e + 1 < d.offsets.size(); ++e)
        std::fill(expert.begin() + d.offsets[e], expert.begin() + d.offsets[e + 1],
                  static_cast<int32_t>(e));
    return expert;
}

}  // namespace

MoeLayer::MoeLayer(sharding::WeightBuilder& b, const RouterSpec& router,
                   const std::vector<std::string>& gates, const sharding::ExpertSource& source,
                   const std::optional<SharedExpertSource>& shared)
    : spec_(router),
      router_(b.replicated(gates, source.experts, source.hidden)),
      experts_(b.experts(source, std::make_shared<KernelMoeMethod>())),
      grid_(b.grid()),
      hidden_(source.hidden),
      width_(source.width),
      deterministic_(b.deterministic()) {
    shared_statistics_ = statistics_to_share(b.rank());
    if (shared)
        shared_.emplace(Shared{GatedMlp(b, shared->prefix, hidden_, shared->width),
                               b.replicated({shared->gate}, 1, hidden_)});
}

int64_t MoeLayer::statistics_to_share(int rank) const {
    if (deterministic_ || experts_.experts.empty()) return 0;
    int64_t most = 0;
    for (const quant::LinearWeights& w : experts_.weights->w2) {
        const quant::ActivationRule& rule = w.descriptor.parts[0].rule;
        if (sharding::scale_spans_ranks(rule, sharers(rank)))
            most = std::max(most, quant::statistics_per_row(rule, width_));
    }
    return most;
}

std::span<const Interval> MoeLayer::sharers(int rank) const {
    return std::span<const Interval>(*experts_.width)
        .subspan(static_cast<size_t>(grid_.ep_index(rank) * grid_.expert_tp),
                 static_cast<size_t>(grid_.expert_tp));
}

void MoeLayer::apply(StepContext& context, const float* x, int64_t tokens, float* out) const {
    const Workspace::Scope scope(context.workspace);
    quant::PreparedInput input(x, hidden_, tokens, hidden_, context.ops, context.executor,
                               context.workspace);
    float* logits = context.workspace.allocate<float>(tokens * spec_.experts);
    router_.apply(context, input, std::span<float* const>(&logits, 1));
    int32_t* ids = context.workspace.allocate<int32_t>(tokens * spec_.top_k);
    float* weights = context.workspace.allocate<float>(tokens * spec_.top_k);
    route(spec_, logits, tokens, context.ops, ids, weights);
    const std::span<const int32_t> chosen(ids, static_cast<size_t>(tokens * spec_.top_k));
    if (deterministic_)
        experts_deterministic(context, input, chosen, weights, out);
    else
        experts_fast(context, input, chosen, weights, out);
    if (shared_) add_shared(context, input, out);
    if (!deterministic_) context.comm.all_reduce_sum(out, static_cast<size_t>(tokens * hidden_));
}

/// Fast mode adds this rank's part, before the one sum over ranks; deterministic mode the whole.
void MoeLayer::add_shared(StepContext& context, quant::PreparedInput& x, float* out) const {
    const Workspace::Scope scope(context.workspace);
    const int64_t tokens = x.rows();
    float* gate = context.workspace.allocate<float>(tokens);
    shared_->gate.apply(context, x, std::span<float* const>(&gate, 1));
    float* y = context.workspace.allocate<float>(tokens * hidden_);
    if (deterministic_)
        shared_->mlp.apply(context, x.f32(), tokens, y);
    else
        shared_->mlp.apply_partial(context, x.f32(), tokens, y);
    for (int64_t t = 0; t < tokens; ++t) {
        const float weight = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(gate[t]))));
        context.ops.axpy(weight, y + t * hidden_, hidden_, out + t * hidden_);
    }
}

void MoeLayer::experts_fast(StepContext& context, quant::PreparedInput& x,
                            std::span<const int32_t> ids, const float* weights, float* out) const {
    const Dispatch d = dispatch(ids, spec_.top_k, experts_.experts);
    const Interval held =
        experts_.experts.empty() ? Interval{} : (*experts_.width)[context.comm.rank()];
    const int64_t width = held.size();
    if (d.slots() == 0 || (width == 0 && shared_statistics_ == 0)) {
        std::memset(out, 0, static_cast<size_t>(x.rows() * hidden_) * sizeof(float));
        return;
    }
    float* inter = context.workspace.allocate<float>(d.slots() * width);
    if (width > 0)
        experts_.method->apply_w13(*experts_.weights, context.bases, x, d.view(), inter, width,
                                   context.ops, context.executor);
    quant::PreparedInput act(inter, width, d.slots(), width, context.ops, context.executor,
                             context.workspace);
    act.place({held, width_});
    if (shared_statistics_ > 0) {
        const std::vector<int32_t> expert_of = experts_of_slots(d);
        sharding::share_statistics(
            context.expert_tp, context, act, shared_statistics_,
            [&](int64_t slot) -> const quant::PartDescriptor* {
                const auto& w2 = experts_.weights->w2[expert_of[slot]].descriptor.parts[0];
                const auto cut = sharers(context.comm.rank());
                return sharding::scale_spans_ranks(w2.rule, cut) ? &w2 : nullptr;
            });
    }
    if (width == 0) {
        std::memset(out, 0, static_cast<size_t>(x.rows() * hidden_) * sizeof(float));
    } else {
        float* y = context.workspace.allocate<float>(d.slots() * hidden_);
        experts_.method->apply_w2(*experts_.weights, context.bases, act, d.view(), y, hidden_,
                                  context.executor);
        combine(context, x.rows(), spec_.top_k, weights, hidden_, out, [&](int64_t t, int64_t j) {
            const int64_t slot = d.slot_of[t * spec_.top_k + j];
            return slot < 0 ? nullptr : y + slot * hidden_;
        });
    }
}

// Nothing is cut along K: the intermediate is gathered among the ranks that share an expert, each
// of which makes its own columns of that expert's output for every slot. Each output element is
// then combined over j in ascending order, either before the last gather (one expert group: all
// choices of a token are here) or after it.
void MoeLayer::experts_deterministic(StepContext& context, quant::PreparedInput& x,
                                     std::span<const int32_t> ids, const float* weights,
                                     float* out) const {
    const int rank = context.comm.rank(), group = grid_.ep_index(rank), tp = grid_.expert_tp;
    const int64_t tokens = x.rows();
    std::vector<Dispatch> groups;
    for (int g = 0; g < grid_.expert_ep; ++g)
        groups.push_back(dispatch(ids, spec_.top_k, split(spec_.experts, 1, grid_.expert_ep, g)));
    const Dispatch& own = groups[group];
    std::vector<Interval> hidden;  // columns of the output that each rank of a group makes
    for (int i = 0; i < tp; ++i) hidden.push_back(split(hidden_, sharding::kRowGranule, tp, i));
    const int64_t local = hidden[grid_.tp_index(rank)].size();
    float* y = context.workspace.allocate<float>(own.slots() * local);
    if (own.slots() > 0) {
        const auto widths = std::span(*experts_.width).subspan(static_cast<size_t>(group * tp), tp);
        const int64_t width = widths[grid_.tp_index(rank)].size();
        float* part = context.workspace.allocate<float>(own.slots() * width);
        float* inter = context.workspace.allocate<float>(own.slots() * width_);
        if (width > 0)
            experts_.method->apply_w13(*experts_.weights, context.bases, x, own.view(), part, width,
                                       context.ops, context.executor);
        sharding::gather_columns(context.expert_tp, context, part, own.slots(), widths, width_,
                                 inter);
        quant::PreparedInput act(inter, width_, own.slots(), width_, context.ops, context.executor,
                                 context.workspace);
        if (local > 0)
            experts_.method->apply_w2(*experts_.weights, context.bases, act, own.view(), y, local,
                                      context.executor);
    }
    if (grid_.expert_ep == 1) {
        float* mine = context.workspace.allocate<float>(tokens * local);
        combine(context, tokens, spec_.top_k, weights, local, mine,
                [&](int64_t t, int64_t j) { return y + own.slot_of[t * spec_.top_k + j] * local; });
        sharding::gather_columns(context.comm, context, mine, tokens, hidden, hidden_, out);
        return;
    }
    // block[g * tp + i]: [slots of group g, columns of rank i of a group].
    std::vector<size_t> bytes;
    std::vector<const float*> block;
    int64_t total = 0;
    for (int r = 0; r < grid_.ranks; ++r) {
        const int64_t n = groups[grid_.ep_index(r)].slots() * hidden[grid_.tp_index(r)].size();
        bytes.push_back(static_cast<size_t>(n) * sizeof(float));
        total += n;
    }
    float* all = context.workspace.allocate<float>(total);
    for (int64_t r = 0, at = 0; r < grid_.ranks; at += static_cast<int64_t>(bytes[r++] / 4))
        block.push_back(all + at);
    context.comm.all_gather(y, all, bytes);
    context.executor.parallel_for(tokens, [&](int64_t t) {
        float* o = out + t * hidden_;
        std::memset(o, 0, static_cast<size_t>(hidden_) * sizeof(float));
        for (int64_t j = 0; j < spec_.top_k; ++j) {
            const int64_t i = t * spec_.top_k + j;
            int g = 0;
            while (groups[g].slot_of[i] < 0) ++g;
            for (int c = 0; c < tp; ++c)
                if (const int64_t n = hidden[c].size(); n > 0)
                    context.ops.axpy(weights[i], block[g * tp + c] + groups[g].slot_of[i] * n, n,
                                     o + hidden[c].begin);
        }
    });
}

}  // namespace conclave::moe
