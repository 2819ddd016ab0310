#include <spdlog/fmt/fmt.h>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/format.h"

namespace conclave::launch {
namespace {

std::string bytes(uint64_t n) { return human_bytes(static_cast<double>(n)); }

std::string rank_table(const LoadPlan& p) {
    std::string out = fmt::format("{:>4}  {:>7}  {:>8}  {:>7}  {:>8}  {:>10}  {:>10}  {:>10}  {}\n",
                                  "rank", "q heads", "kv heads", "experts", "width", "weights",
                                  "KV cache", "to read", "cut away");
    for (const RankPlan& r : p.ranks)
        out += fmt::format("{:>4}  {:>7}  {:>8}  {:>7}  {:>8}  {:>10}  {:>10}  {:>10}  {:>8}\n",
                           r.rank, r.query_heads, r.kv_heads, r.experts, r.expert_width,
                           bytes(r.weight_bytes), bytes(r.kv_bytes), bytes(r.read_bytes),
                           bytes(r.stripe_bytes));
    return out;
}

/// Layers that are served alike, one after the other, share one list of reasons.
std::string kernel_list(const LoadPlan& p) {
    std::string out;
    for (size_t i = 0; i < p.kernels.size(); ++i) {
        const KernelUse& k = p.kernels[i];
        out += fmt::format("{} ({} {})\n", terminal_safe(k.layer), k.layers,
                           k.layers == 1 ? "layer" : "layers");
        const KernelUse* next = i + 1 < p.kernels.size() ? &p.kernels[i + 1] : nullptr;
        if (next && next->kernel == k.kernel && next->encoding == k.encoding &&
            next->activations == k.activations && next->refused == k.refused)
            continue;
        out += fmt::format("  served by {}: {} weights, {} activations\n", k.kernel, k.encoding,
                           k.activations);
        for (const std::string& reason : k.refused)
            out += "  not by " + terminal_safe(reason) + "\n";
    }
    return out;
}

void print_text(const LoadPlan& p, bool kernels_only) {
    if (kernels_only) return print(kernel_list(p));
    std::string out = "layout         " + p.layout + "\n";
    if (!p.layout_reason.empty()) out += "because        " + p.layout_reason + "\n";
    out += "instructions   " + p.isa + "\n";
    out += fmt::format("communication  {} gathers and {} reductions a layer, {} a token and rank\n",
                       p.gathers_per_layer, p.reductions_per_layer,
                       bytes(p.communication_bytes_per_token));
    out += "\n" + rank_table(p);
    for (const std::string& notice : p.notices) out += terminal_safe(notice) + "\n";
    out += "\n" + kernel_list(p);
    print(out);
}

}  // namespace

int plan(const Invocation& invocation) {
    if (!invocation.predict.links.empty()) return predict(invocation);
    const LoadPlan p = conclave::plan(invocation.engine, invocation.plan_ranks);
    invocation.json ? print(to_json(p) + "\n") : print_text(p, invocation.plan_kernels);
    return 0;
}

}  // namespace conclave::launch
