// What a checkpoint is, from config.json and headers alone.
#include <algorithm>
#include <filesystem>
#include <map>

#include "runtime/api/conclave.hpp"
#include "runtime/engine/model.h"
#include "runtime/engine/model_files.h"
#include "sharding/weight_store.h"

namespace conclave {
namespace {

std::string part_of(const std::string& tensor) {
    const auto has = [&](const char* s) { return tensor.find(s) != std::string::npos; };
    if (has("embed_tokens") || has("lm_head")) return "embeddings";
    if (has(".experts.")) return "experts";
    if (has("self_attn") || has(".attention.")) return "attention";
    if (has(".mlp.") && !has(".gate.")) return "dense mlp";
    return "other";
}

std::string lower(std::string s) {
    std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return std::tolower(c); });
    return s;
}

/// Declares the whole model, as one rank would: its logical matrices and vectors. Throws as loading
/// would for missing, mis-shaped and unknown tensors.
void count_parameters(const engine::ModelFiles& files, const quant::QuantizationConfig& format,
                      const engine::ModelShape& shape, const quant::KernelRegistry& kernels,
                      ModelSummary& s) {
    const engine::Architecture& architecture =
        engine::find_architecture(files.config, files.config_file);
    sharding::WeightStore store({1.0});
    sharding::WeightBuilder builder({*files.checkpoint,
                                     format,
                                     kernels,
                                     cpu_from_environment(),
                                     quant::Activations::kF32,
                                     false,
                                     0,
                                     store,
                                     {}},
                                    {1, 1, 1});
    const auto model = architecture.build(shape, builder);
    builder.finish(architecture.ignorable);
    std::map<std::string, int64_t> sizes;  // a tied head is declared twice
    std::map<std::string, EncodingBytes> matrices;
    for (const sharding::MatrixItem& m : builder.items().matrices) {
        const std::string one = m.logical.stem + " " + std::to_string(m.logical.lead);
        if (!sizes.emplace(one, m.logical.n * m.logical.k).second) continue;
        EncodingBytes& e = matrices[m.stored.encoding.to_string()];
        e.encoding = m.stored.encoding.to_string();
        ++e.tensors;
        e.bytes += m.packed->bytes();
    }
    for (const sharding::VectorItem& v : builder.items().vectors) sizes[v.name] = v.length;
    for (const auto& [_, size] : sizes) s.parameters += size;
    for (const auto& [_, e] : matrices) s.matrices.push_back(e);
}

}  // namespace

ModelSummary inspect(const std::string& path, bool weights) {
    EngineOptions options;
    options.model = path;
    return inspect(options, weights);
}

ModelSummary inspect(const EngineOptions& options, bool weights) {
    const std::string& path = options.model;
    weights = weights && options.load_format != "dummy";
    const engine::Extensions& extensions = engine::Extensions::of(options);
    const engine::ModelFiles files =
        engine::open_model_files(path, weights, extensions, options.load_format);
    ModelSummary s;
    s.path = path;
    s.tokenizer = files.has("tokenizer.json");
    s.quantization = files.quantization.method;
    const engine::ModelName name = engine::model_name(files.config, files.config_file);
    s.architecture = name.architecture;
    s.model_type = name.model_type;
    try {
        const engine::Architecture& architecture =
            engine::find_architecture(files.config, files.config_file);
        const engine::ModelShape shape = architecture.shape(files.config, files.config_file);
        s.layers = shape.layers;
        s.hidden_size = shape.hidden_size;
        s.vocab_size = shape.vocab_size;
        s.experts = shape.experts;
        s.experts_per_token = shape.experts_per_token;
        s.moe_layers = shape.moe_layers();
        s.attention_heads = shape.heads;
        s.kv_heads = shape.kv_heads;
        s.head_dim = shape.head_dim;
        s.max_position_embeddings = shape.max_position_embeddings;
        const auto format = engine::choose_format(files, extensions.formats, "");
        if (weights) count_parameters(files, *format, shape, extensions.kernels, s);
        s.supported = architecture.unserved.empty();
        s.unsupported_reason = architecture.unserved;
    } catch (const Error& e) {
        s.unsupported_reason = e.what();
    }
    std::map<std::string, EncodingBytes> encodings;
    std::map<std::string, uint64_t> parts;
    for (const sharding::StoredTensor& t : files.checkpoint->tensors()) {
        EncodingBytes& e = encodings[lower(sharding::stored_type_name(t.type))];
        e.encoding = lower(sharding::stored_type_name(t.type));
        ++e.tensors;
        e.bytes += t.bytes;
        s.bytes += t.bytes;
        parts[part_of(t.name)] += t.bytes;
    }
    for (const auto& f : files.checkpoint->files())
        s.files.emplace_back(std::filesystem::path(f.path).filename().string(), f.bytes);
    for (auto& [_, e] : encodings) s.encodings.push_back(e);
    s.parts.assign(parts.begin(), parts.end());
    return s;
}

}  // namespace conclave
