#include "runtime/engine/model_files.h"

#include <filesystem>

#include "runtime/base/error.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"

namespace conclave::engine {

namespace fs = std::filesystem;

uint64_t ModelFiles::fingerprint() const {
    Hasher h;
    h.add(config.dump());
    h.add(generation.dump());
    h.add(checkpoint->fingerprint());
    return h.value();
}

ModelFiles open_model_files(const std::string& path, bool weights) {
    ModelFiles files;
    std::error_code none;
    const fs::path p(path);
    if (!fs::exists(p, none))
        throw Error(ErrorCode::kMissingFile, "no such model directory or file").file(path);
    files.directory = fs::is_directory(p, none) ? path
                      : p.has_parent_path()     ? p.parent_path().string()
                                                : std::string(".");
    files.config_file = (fs::path(files.directory) / "config.json").string();
    files.generation_file = (fs::path(files.directory) / "generation_config.json").string();
    files.config = parse_json_file(files.config_file);
    if (!files.config.is_object())
        throw Error(ErrorCode::kBadContent, "config.json is not an object")
            .file(files.config_file)
            .found(describe_json(files.config));
    if (is_there(files.generation_file)) {
        files.generation = parse_json_file(files.generation_file);
        if (!files.generation.is_object())
            throw Error(ErrorCode::kBadContent, "generation_config.json is not an object")
                .file(files.generation_file)
                .found(describe_json(files.generation));
    }
    files.checkpoint = weights ? sharding::Checkpoint::open(path) : sharding::Checkpoint::none();
    return files;
}

namespace {

/// What the files say, before another format claims it.
QuantizationSource stated_source(const ModelFiles& files,
                                 const quant::QuantizationRegistry& formats) {
    const Json* q = find_json(files.config, "quantization_config", files.config_file);
    if (!q) q = find_json(files.config, "compression_config", files.config_file);
    if (q && !q->is_object())
        throw Error(ErrorCode::kBadContent, "quantization_config is not an object")
            .file(files.config_file)
            .found(describe_json(*q));
    if (q) {
        std::string method = get_string(*q, "quant_method", files.config_file);
        return {method, method, *q, files.config_file};
    }
    for (const std::string& name : formats.names())
        for (const std::string& beside : formats.find(name)->config_files) {
            const std::string file = (fs::path(files.directory) / beside).string();
            if (!is_there(file)) continue;
            Json config = parse_json_file(file);
            if (!config.is_object())
                throw Error(ErrorCode::kBadContent, "not an object")
                    .file(file)
                    .found(describe_json(config));
            std::string method = get_string_or(config, "quant_method", name, file);
            return {method, method, std::move(config), file};
        }
    return {"none", "none", Json::object(), files.config_file};
}

}  // namespace

QuantizationSource quantization_source(const ModelFiles& files,
                                       const quant::QuantizationRegistry& formats) {
    QuantizationSource source = stated_source(files, formats);
    for (const std::string& name : formats.names()) {
        const auto& claims = formats.find(name)->claims;
        if (claims && claims(source.config)) {
            source.method = name;
            break;
        }
    }
    return source;
}

std::unique_ptr<quant::QuantizationConfig> choose_format(const ModelFiles& files,
                                                         const quant::QuantizationRegistry& formats,
                                                         const std::string& asked) {
    const QuantizationSource source = quantization_source(files, formats);
    std::string known;
    for (const std::string& name : formats.names()) known += (known.empty() ? "" : ", ") + name;
    if (!asked.empty() && !formats.find(asked))
        throw Error(ErrorCode::kUsage, "--quantization names no format that is served")
            .expected(known)
            .found(asked);
    if (!asked.empty() && asked != source.method && asked != source.stated)
        throw Error(ErrorCode::kUsage, "--quantization contradicts the checkpoint")
            .file(source.file)
            .expected(source.method)
            .found(asked);
    const quant::QuantizationFormat* format = formats.find(source.method);
    if (!format)
        throw Error(ErrorCode::kUnsupported, "this quantization format is not served")
            .file(source.file)
            .expected(known)
            .found(source.method.substr(0, 128));
    return format->from_config(source.config, source.file);
}

}  // namespace conclave::engine
