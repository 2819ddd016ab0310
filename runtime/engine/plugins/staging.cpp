#include "runtime/engine/plugins/staging.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/text.h"
#include "runtime/engine/plugins/host.h"

namespace conclave::engine {
namespace {

constexpr size_t kMaxName = 64;
/// Rows that pack() is given at once are few; the built-in kernels have at most 32.
constexpr int64_t kMaxRowBlock = 4096;

template <class List, class Name>
bool has(const List& list, const std::string& name, Name&& name_of) {
    return std::any_of(list.begin(), list.end(),
                       [&](const auto& entry) { return name_of(entry) == name; });
}

/// What a model has that is not quantized: a format that found its config there would have them
/// all.
const char* const kFilesOfAnyModel[] = {"config.json",
                                        "generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "model.safetensors.index.json",
                                        "chat_template.json",
                                        "processor_config.json",
                                        "preprocessor_config.json"};

/// What is wrong with a file that a format keeps its config in; empty: nothing.
std::string fault_of_config_file(const std::string& file) {
    const std::string_view end = ".json";
    const bool plain = file.size() > end.size() && file.size() <= 2 * kMaxName &&
                       file.ends_with(end) && std::all_of(file.begin(), file.end(), [](char c) {
                           return c > 0x20 && c < 0x7f && c != '/' && c != '\\';
                       });
    if (!plain) return "which is no plain file name that ends in .json";
    for (const char* any : kFilesOfAnyModel)
        if (file == any) return "which models have that are not quantized";
    return "";
}

/// What is wrong with a kernel's declaration; empty: nothing.
std::string fault_of(const quant::Kernel& k) {
    if (!k.family || !*k.family) return "has no family";
    if (static_cast<int>(k.isa) >= kIsaCount)
        return fmt::format("declares instruction set {} of {}", static_cast<int>(k.isa), kIsaCount);
    if (k.code > quant::kLastCode)
        return fmt::format("computes codes of no type ({})", static_cast<int>(k.code));
    if (k.x > quant::XType::kI8Row)
        return fmt::format("reads input of no type ({})", static_cast<int>(k.x));
    if (k.row_block < 1 || k.row_block > kMaxRowBlock)
        return fmt::format("packs {} rows at once (1 to {})", k.row_block, kMaxRowBlock);
    if (!k.packed_bytes) return "has no packed_bytes()";
    if (!k.pack) return "has no pack()";
    if (!k.scratch_bytes) return "has no scratch_bytes()";
    if (!k.run) return "has no run()";
    return "";
}

std::string fault_of(const quant::StoredPiece& piece, const std::string& indexer) {
    if (!piece.indexer.empty() && piece.indexer != indexer)
        return "names indexer " + in_quotes(piece.indexer);
    if (piece.rows < 1 || piece.cols < 1 || piece.element_bytes < 1 || piece.block < 1)
        return fmt::format("has {} x {} elements, {} bytes for {}", piece.rows, piece.cols,
                           piece.element_bytes, piece.block);
    return "";
}

}  // namespace

const PluginHost& Staging::host() const { return plugin_host(); }

void Staging::refuse(const std::string& why) {
    if (fault_.empty()) fault_ = why;
    throw Error(ErrorCode::kUsage, why);
}

void Staging::check_name(const std::string& what, const std::string& name) {
    const bool sane =
        !name.empty() && name.size() <= kMaxName &&
        std::all_of(name.begin(), name.end(), [](char c) { return c > 0x20 && c < 0x7f; });
    if (!sane)
        refuse(fmt::format("{} has the name {}: 1 to {} letters, none blank", what, in_quotes(name),
                           kMaxName));
}

/// Says who has it.
void Staging::refuse_taken(const std::string& what, const std::string& name,
                           std::vector<std::string> PluginReport::*names) {
    std::string owner = "the engine";
    for (const PluginReport& p : before_.loaded)
        if (std::find((p.*names).begin(), (p.*names).end(), name) != (p.*names).end())
            owner = fmt::format("plugin {} ({})", p.name, p.file);
    refuse(fmt::format("{} {} is there already: of {}", what, in_quotes(name), owner));
}

/// The format that keeps its config in `file`; empty: none.
std::string Staging::format_with(const std::string& file) const {
    const auto keeps = [&](const quant::QuantizationFormat& f) {
        return std::find(f.config_files.begin(), f.config_files.end(), file) !=
               f.config_files.end();
    };
    for (const std::string& name : before_.formats.names())
        if (keeps(*before_.formats.find(name))) return name;
    for (const quant::QuantizationFormat& f : formats_)
        if (keeps(f)) return f.name;
    return "";
}

void Staging::add_format(quant::QuantizationFormat format) {
    check_name("a format", format.name);
    const std::string name = "format " + in_quotes(format.name);
    if (before_.formats.find(format.name))
        refuse_taken("format", format.name, &PluginReport::formats);
    if (has(formats_, format.name, [](const auto& f) { return f.name; }))
        refuse(name + " is registered twice");
    if (!format.from_config) refuse(name + " has no from_config()");
    for (const std::string& file : format.config_files) {
        const std::string keeps = name + " keeps its config in " + in_quotes(file) + ", ";
        if (const std::string fault = fault_of_config_file(file); !fault.empty())
            refuse(keeps + fault);
        if (const std::string owner = format_with(file); !owner.empty())
            refuse(keeps + "as format " + in_quotes(owner) + " does");
    }
    formats_.push_back(std::move(format));
}

void Staging::add_indexer(std::string name, std::shared_ptr<const sharding::ShardIndexer> indexer,
                          std::vector<quant::StoredPiece> examples) {
    check_name("an indexer", name);
    const std::string quoted = "indexer " + in_quotes(name);
    if (before_.indexers.count(name)) refuse_taken("indexer", name, &PluginReport::indexers);
    if (has(indexers_, name, [](const auto& i) { return i.name; }))
        refuse(quoted + " is registered twice");
    if (!indexer) refuse(quoted + " is null");
    for (const quant::StoredPiece& piece : examples)
        if (const std::string fault = fault_of(piece, name); !fault.empty())
            refuse("an example of " + quoted + " " + fault);
    indexers_.push_back({std::move(name), std::move(indexer), std::move(examples)});
}

void Staging::add_kernel(const quant::Kernel& kernel) {
    const std::string name = kernel.name ? kernel.name : "";
    check_name("a kernel", name);
    if (before_.kernels.find(name)) refuse_taken("kernel", name, &PluginReport::kernels);
    if (has(kernels_, name, [](const auto* k) { return std::string(k->name); }))
        refuse("kernel " + in_quotes(name) + " is registered twice");
    if (const std::string fault = fault_of(kernel); !fault.empty())
        refuse("kernel " + in_quotes(name) + " " + fault);
    kernels_.push_back(&kernel);
}

void Staging::add_reader(sharding::CheckpointReader reader) {
    check_name("a reader", reader.name);
    const std::string name = "reader " + in_quotes(reader.name);
    if (reader.name == "auto" || reader.name == "dummy")
        refuse(name + " is a word of --load-format's own");
    if (before_.readers.has(reader.name))
        refuse_taken("reader", reader.name, &PluginReport::readers);
    if (has(readers_, reader.name, [](const auto& r) { return r.name; }))
        refuse(name + " is registered twice");
    if (!reader.claims) refuse(name + " has no claims()");
    if (!reader.open) refuse(name + " has no open()");
    readers_.push_back(std::move(reader));
}

void Staging::list(PluginReport& report) const {
    for (const auto& f : formats_) report.formats.push_back(f.name);
    for (const auto& i : indexers_) report.indexers.push_back(i.name);
    for (const auto* k : kernels_) report.kernels.push_back(k->name);
    for (const auto& r : readers_) report.readers.push_back(r.name);
}

void Staging::add_to(Extensions& extensions) const {
    for (const auto& f : formats_) extensions.formats.add(f);
    for (const auto& i : indexers_) {
        extensions.indexers.emplace(i.name, i.indexer);
        extensions.examples.emplace(i.name, i.examples);
    }
    for (auto k = kernels_.rbegin(); k != kernels_.rend(); ++k) extensions.kernels.add_front(*k);
    for (const auto& r : readers_) extensions.readers.add(r);
}

}  // namespace conclave::engine
