// What running a model on some ranks would take: models built for every rank, from headers alone.
#include <algorithm>
#include <map>

#include <spdlog/fmt/fmt.h>

#include "runtime/api/conclave.hpp"
#include "runtime/base/interval.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/model_setup.h"

namespace conclave {
namespace {

/// Numbers between dots become '*': "model.layers.3.mlp" -> "model.layers.*.mlp".
std::string family(const std::string& layer) {
    std::string out, word;
    const auto flush = [&] {
        const bool number = !word.empty() && std::all_of(word.begin(), word.end(), ::isdigit);
        out += number ? "*" : word;
        word.clear();
    };
    for (char c : layer)
        if (c == '.')
            flush(), out += c;
        else
            word += c;
    flush();
    return out;
}

void add_kernels(const std::vector<sharding::KernelRecord>& records, LoadPlan& plan) {
    std::map<std::string, size_t> at;
    for (const sharding::KernelRecord& r : records) {
        const std::string name = family(r.layer);
        const std::string key = name + " " + r.choice.kernel->name;
        if (!at.count(key)) {
            at[key] = plan.kernels.size();
            KernelUse use{
                name, r.choice.kernel->name, r.encoding.to_string(), r.rule.to_string(), 0, {}};
            for (const quant::KernelRefusal& f : r.choice.refused) {
                std::string why;
                for (const std::string& reason : f.reasons)
                    why += (why.empty() ? "" : "; ") + reason;
                use.refused.push_back(std::string(f.kernel->name) + ": " + why);
            }
            plan.kernels.push_back(std::move(use));
        }
        ++plan.kernels[at[key]].layers;
    }
}

/// Payload of one decoded token on each rank: two exchanges of the residual width a layer and the
/// embedding in fast mode; in deterministic mode the inputs of o_proj and w2 are gathered as well.
void add_communication(const engine::ModelShape& s, const sharding::RankGrid& grid,
                       bool deterministic, LoadPlan& plan) {
    if (grid.ranks == 1) return;
    plan.reductions_per_layer = deterministic ? 0 : 2;
    plan.gathers_per_layer = deterministic ? 4 : 0;
    int64_t floats = s.hidden_size;
    for (int64_t i = 0; i < s.layers; ++i) {
        floats += 2 * s.hidden_size;
        if (!deterministic) continue;
        floats += s.heads * s.head_dim;
        if (!s.moe_layer[i]) {
            floats += s.intermediate_size;
        } else {
            if (grid.expert_tp > 1) floats += s.experts_per_token * s.expert_width;
            if (grid.expert_ep > 1) floats += (s.experts_per_token - 1) * s.hidden_size;
        }
    }
    plan.communication_bytes_per_token = static_cast<uint64_t>(floats) * sizeof(float);
}

}  // namespace

LoadPlan plan(const EngineOptions& options, int ranks) {
    if (ranks < 1 || ranks > 65536)
        throw Error(ErrorCode::kUsage, "--ranks is out of range")
            .expected("1 .. 65536")
            .found(std::to_string(ranks));
    const engine::ModelSetup model = engine::set_up_model(options, ranks);
    engine::expect_runnable(model);
    const engine::ModelFiles& files = model.files;
    const engine::ModelShape& shape = model.shape;
    const sharding::LayoutChoice& layout = model.layout;
    const engine::Extensions& extensions = engine::Extensions::of(options);
    const CpuFeatures cpu = cpu_from_environment();
    const int64_t tokens = options.kv_cache_tokens > 0 ? options.kv_cache_tokens
                           : options.max_model_len > 0 ? options.max_model_len
                                                       : shape.max_position_embeddings;
    LoadPlan out;
    out.layout = layout.grid.to_string();
    out.layout_reason = layout.reason;
    out.isa = cpu.to_string();
    out.notices = engine::empty_rank_notices(shape, layout.grid);
    if (layout.notice) out.notices.insert(out.notices.begin(), layout.reason);
    for (int r = 0; r < ranks; ++r) {
        sharding::WeightStore store({1.0});
        sharding::WeightBuilder builder(
            {*files.checkpoint, *model.format, extensions.kernels, cpu, model.activations,
             options.deterministic, r, store, model.dummy},
            layout.grid);
        const auto built = model.architecture->build(shape, builder);
        builder.finish(model.architecture->ignorable);
        if (r == 0) builder.plan().check();
        RankPlan p;
        p.rank = r;
        p.query_heads = split(shape.heads, 1, ranks, r).size();
        p.kv_heads = (*builder.plan().kv_heads(shape.heads, shape.kv_heads, 1))[r].size();
        if (shape.moe_layers() > 0) {
            p.experts = (*builder.plan().experts(shape.experts))[r].size();
            p.expert_width = split(shape.expert_width, sharding::kColumnGranule,
                                   layout.grid.expert_tp, layout.grid.tp_index(r))
                                 .size();
        }
        p.weight_bytes = store.reserved_bytes();
        for (const engine::KvSpec& s : built->kv_specs(model.kv_dtype))
            p.kv_bytes +=
                s.block_bytes() * static_cast<uint64_t>(ceil_div(tokens, engine::kBlockTokens));
        const sharding::LoadStats load =
            sharding::predict_load(*files.checkpoint, extensions.indexers, builder.items());
        p.read_bytes = load.needed_bytes;
        p.stripe_bytes = load.stripe_bytes;
        out.ranks.push_back(p);
        if (r == 0) add_kernels(builder.kernels(), out);
    }
    add_communication(shape, layout.grid, options.deterministic, out);
    return out;
}

}  // namespace conclave
