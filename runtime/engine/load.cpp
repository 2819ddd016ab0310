// Engine, part one: from files to weights in place. Every phase that can fail on one rank alone
// ends in an agreement, so that all ranks go on or none.
#include <algorithm>
#include <chrono>
#include <map>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/interval.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/model_setup.h"
#include "runtime/engine/rank_setup.h"

namespace conclave::engine {
namespace {

/// Collective: every rank must have seen the same value as rank 0.
void same_everywhere(comm::Communicator& comm, uint64_t value, const std::string& what,
                     const std::string& file) {
    std::vector<uint64_t> all(comm.size());
    const std::vector<size_t> bytes(comm.size(), sizeof value);
    comm.all_gather(&value, all.data(), bytes);
    comm::together(comm, [&] {
        if (value != all[0])
            throw Error(ErrorCode::kBadContent, what)
                .file(file)
                .rank(comm.rank())
                .expected(fmt::format("{:016x} (rank 0)", all[0]))
                .found(fmt::format("{:016x}", value));
    });
}

std::string gib(uint64_t bytes) {
    return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1 << 30));
}

/// The activation rules of a rank's matrices, the most used first: "int8, bf16"; without routers,
/// which are always f32.
std::string rules_in_use(const std::vector<sharding::KernelRecord>& kernels) {
    std::map<std::string, int64_t> uses;
    for (const sharding::KernelRecord& k : kernels)
        if (k.follows_policy) ++uses[k.rule.to_string()];
    std::vector<std::pair<std::string, int64_t>> rules(uses.begin(), uses.end());
    std::stable_sort(rules.begin(), rules.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    std::string text;
    for (const auto& [rule, count] : rules) text += (text.empty() ? "" : ", ") + rule;
    return text;
}

}  // namespace

std::vector<std::string> empty_rank_notices(const ModelShape& s, const sharding::RankGrid& grid) {
    std::string heads, experts;
    const auto name = [](std::string& list, int rank) {
        list += (list.empty() ? "" : ", ") + std::to_string(rank);
    };
    for (int r = 0; r < grid.ranks; ++r) {
        if (split(s.heads, 1, grid.ranks, r).empty()) name(heads, r);
        if (s.experts > 0 &&
            (split(s.experts, 1, grid.expert_ep, grid.ep_index(r)).empty() ||
             split(s.expert_width, sharding::kColumnGranule, grid.expert_tp, grid.tp_index(r))
                 .empty()))
            name(experts, r);
    }
    std::vector<std::string> notices;
    if (!heads.empty())
        notices.push_back(fmt::format("more ranks than query heads ({}): no attention on rank {}",
                                      s.heads, heads));
    if (!experts.empty())
        notices.push_back(fmt::format("{} experts of width {} over {}x{}: none on rank {}",
                                      s.experts, s.expert_width, grid.expert_tp, grid.expert_ep,
                                      experts));
    return notices;
}

sharding::ExpertShape expert_shape(const ModelShape& s) {
    return {s.moe_layers() > 0 ? s.experts : 0, s.experts_per_token, s.expert_width,
            sharding::kColumnGranule};
}

void Engine::load(const EngineOptions& options, const AdjustSetup& adjust) {
    const auto begin = std::chrono::steady_clock::now();
    comm::Communicator& comm = *comm_;
    const bool chatty = comm.rank() == 0;
    comm.set_phase("opening the model");
    if (chatty && !comm.advice().empty()) log_.warning("{}", comm.advice());
    const Extensions& extensions = Extensions::of(options);
    expect_same_plugins(comm, extensions);

    ModelSetup model;
    comm::together(comm, [&] {
        model = set_up_model(options, comm.size());
        expect_runnable(model);
        if (adjust) adjust(model);
        shape_ = model.shape;
        eos_ = eos_tokens(model.files.config, model.files.config_file, model.files.generation,
                          model.files.generation_file, shape_.vocab_size);
    });
    const ModelFiles& files = model.files;
    const sharding::LayoutChoice& layout = model.layout;
    same_everywhere(comm, files.fingerprint(), "ranks see different model files", files.directory);

    const RankSetup setup = set_up_rank(comm, options);
    cpu_ = setup.cpu;
    if (!setup.advice.empty()) log_.warning("rank {}: {}", comm.rank(), setup.advice);
    std::unique_ptr<sharding::WeightBuilder> builder;
    std::vector<sharding::IgnoredTensors> ignored;
    comm::together(comm, [&] {
        executor_ = std::make_unique<exec::Arenas>(setup.topology, setup.threads);
        std::vector<double> shares;
        for (int n = 0; n < executor_->nodes(); ++n)
            shares.push_back(static_cast<double>(executor_->threads(n)) / executor_->threads());
        weights_ = std::make_unique<sharding::WeightStore>(shares);
        builder = std::make_unique<sharding::WeightBuilder>(
            sharding::BuildContext{*files.checkpoint, *model.format, extensions.kernels, cpu_,
                                   model.activations, options.deterministic, comm.rank(), *weights_,
                                   model.dummy},
            layout.grid);
        model_ = model.architecture->build(shape_, *builder);
        ignored = builder->finish(model.ignorable);
        builder->plan().check();
    });
    same_everywhere(comm, builder->plan().hash(), "ranks made different shard plans",
                    files.directory);
    if (chatty) {
        if (layout.notice) log_.warning("{}", layout.reason);
        for (const std::string& n : empty_rank_notices(shape_, layout.grid)) log_.warning("{}", n);
        for (const auto& i : ignored)
            log_.info("ignored {} tensors that match {} ({} bytes)", i.count, i.pattern, i.bytes);
    }

    comm::together(comm, [&] {
        weights_->map();
        size_cache(options, model.kv_dtype);
    });
    if (weights_->pages() == exec::PageKind::kSmall && comm.local_rank() == 0)
        log_.warning(
            "no 2 MiB pages on {}: neither hugetlbfs nor transparent huge pages are to be "
            "had, reading weights will be slower",
            comm.host());
    const auto progress = [&](uint64_t done, uint64_t total) {
        if (options.progress)
            options.progress(
                {done, total,
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(),
                 done == total});
    };
    sharding::PackingSink sink(weights_->bases());
    const sharding::LoadStats loaded = sharding::load_weights(
        *files.checkpoint, extensions.indexers, builder->items(), sink, *executor_, comm, progress);
    stats_.resident_weight_bytes = weights_->reserved_bytes();
    stats_.kv_bytes = cache_->bytes();
    stats_.load_bytes_needed = loaded.needed_bytes;
    stats_.load_bytes_requested = loaded.requested_bytes;
    stats_.load_stripe_bytes = loaded.stripe_bytes;
    stats_.offset_tables = loaded.offset_tables;

    expert_tp_ = comm.split(layout.grid.ep_index(comm.rank()), comm.rank());
    std::vector<uint64_t> all(comm.size());
    const std::vector<size_t> bytes(comm.size(), sizeof(uint64_t));
    comm.all_gather(&loaded.needed_bytes, all.data(), bytes);
    for (uint64_t b : all) report_.bytes += b;
    report_.ranks = comm.size();
    report_.threads = setup.threads;
    report_.layout = layout.grid.to_string();
    report_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

    description_ = fmt::format(
        "{} activations, {}, {} thread{} per rank, {}{}",
        builder->kernels().empty() ? options.activations : rules_in_use(builder->kernels()),
        isa_name(best_isa(cpu_)), setup.threads, setup.threads == 1 ? "" : "s", report_.layout,
        options.deterministic ? ", deterministic" : "");
}

void Engine::size_cache(const EngineOptions& o, quant::CodeType dtype) {
    limits_.max_num_seqs = o.max_num_seqs;
    limits_.max_num_batched_tokens = o.max_num_batched_tokens;
    limits_.vocab_size = shape_.vocab_size;
    limits_.max_model_len = o.max_model_len > 0 ? o.max_model_len : shape_.max_position_embeddings;
    if (limits_.max_model_len > shape_.max_position_embeddings)
        throw Error(ErrorCode::kUsage, "--max-model-len is more than the model's positions")
            .expected(fmt::format("at most {}", shape_.max_position_embeddings))
            .found(std::to_string(limits_.max_model_len));
    const int64_t tokens = o.kv_cache_tokens > 0 ? o.kv_cache_tokens : limits_.max_model_len;
    limits_.blocks = ceil_div(tokens, kBlockTokens);
    cache_ = std::make_unique<KvCache>(model_->kv_specs(dtype), limits_.blocks);
    tables_ = std::make_unique<StepTables>(limits_);
    if (comm_->rank() == 0) scheduler_ = std::make_unique<Scheduler>(limits_);
    log_.debug("rank {}: weights {}, KV cache {}", comm_->rank(), gib(weights_->reserved_bytes()),
               gib(cache_->bytes()));
}

}  // namespace conclave::engine
