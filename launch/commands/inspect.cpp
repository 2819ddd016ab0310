#include <spdlog/fmt/fmt.h>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/format.h"

namespace conclave::launch {
namespace {

/// "bf16 14.5 MiB (339 tensors)", one a line under a common heading.
void add_list(std::string& out, const char* heading, const std::vector<std::string>& entries) {
    for (size_t i = 0; i < entries.size(); ++i)
        out += fmt::format("{:<14} {}\n", i == 0 ? heading : "", entries[i]);
}

std::string sized(const std::string& name, uint64_t bytes) {
    return fmt::format("{:<24} {:>10}", terminal_safe(name),
                       human_bytes(static_cast<double>(bytes)));
}

void print_text(const ModelSummary& m) {
    std::string out;
    const auto line = [&](const char* heading, const std::string& text) {
        out += fmt::format("{:<14} {}\n", heading, text);
    };
    line("model", terminal_safe(m.path));
    line("architecture", terminal_safe(m.architecture) + " (" + terminal_safe(m.model_type) + ")");
    line("parameters", fmt::format("{} in {}", human_count(static_cast<double>(m.parameters)),
                                   human_bytes(static_cast<double>(m.bytes))));
    if (m.layers > 0)  // what an architecture that is not served means by its fields is unknown
        line("layers", fmt::format("{}, hidden {}, vocabulary {}, up to {} tokens", m.layers,
                                   m.hidden_size, m.vocab_size, m.max_position_embeddings));
    if (m.experts > 0)
        line("experts", fmt::format("{}, {} for each token, in {} layers", m.experts,
                                    m.experts_per_token, m.moe_layers));
    if (m.layers > 0)
        line("attention", fmt::format("{} query heads, {} KV heads, {} wide", m.attention_heads,
                                      m.kv_heads, m.head_dim));
    line("quantization", terminal_safe(m.quantization));
    line("tokenizer", m.tokenizer ? "yes" : "none: takes and gives token ids");
    line("supported", m.supported ? "yes" : "no: " + terminal_safe(m.unsupported_reason));
    std::vector<std::string> entries;
    for (const EncodingBytes& e : m.encodings)
        entries.push_back(sized(e.encoding, e.bytes) + fmt::format("  {} tensors", e.tensors));
    add_list(out, "tensors", entries);
    entries.clear();
    for (const EncodingBytes& e : m.matrices)
        entries.push_back(sized(e.encoding, e.bytes) + fmt::format("  {} matrices", e.tensors));
    add_list(out, "in memory", entries);
    entries.clear();
    for (const auto& [part, bytes] : m.parts) entries.push_back(sized(part, bytes));
    add_list(out, "parts", entries);
    entries.clear();
    for (const auto& [name, bytes] : m.files) entries.push_back(sized(name, bytes));
    add_list(out, "files", entries);
    print(out);
}

}  // namespace

int inspect(const Invocation& invocation) {
    const ModelSummary summary = conclave::inspect(invocation.engine);
    invocation.json ? print(to_json(summary) + "\n") : print_text(summary);
    return 0;
}

}  // namespace conclave::launch
