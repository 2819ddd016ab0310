#include "runtime/engine/model_files.h"

#include <filesystem>

#include "runtime/base/error.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "sharding/foreign.h"

namespace conclave::engine {

namespace fs = std::filesystem;

uint64_t ModelFiles::fingerprint() const {
    Hasher h;
    h.add(config.dump());
    h.add(generation.dump());
    h.add(quantization.method);
    h.add(quantization.config.dump());  // what a file beside config.json says, too
    h.add(checkpoint->fingerprint());
    return h.value();
}

ModelFiles open_model_files(const std::string& path, bool weights, const Extensions& extensions,
                            const std::string& load_format) {
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
    const auto read_sidecar = [&](const std::string& name) -> std::optional<quant::Sidecar> {
        const std::string file = (fs::path(files.directory) / name).string();
        if (!is_there(file)) return std::nullopt;
        Json content = parse_json_file(file);
        if (!content.is_object())
            throw Error(ErrorCode::kBadContent, "not an object")
                .file(file)
                .found(describe_json(content));
        return quant::Sidecar{std::move(content), file};
    };
    files.quantization = extensions.formats.source(files.config, files.config_file, read_sidecar);
    files.checkpoint =
        weights ? extensions.readers.open(path, load_format) : sharding::Checkpoint::none();
    return files;
}

std::unique_ptr<quant::QuantizationConfig> choose_format(const ModelFiles& files,
                                                         const quant::QuantizationRegistry& formats,
                                                         const std::string& asked) {
    const quant::QuantizationSource& source = files.quantization;
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
        throw Error(ErrorCode::kUnsupported,
                    "this quantization format is not served, nor does a loaded plugin add it")
            .file(source.file)
            .expected(known)
            .found(source.method.substr(0, 128));
    auto config =
        sharding::call_foreign([&] { return "format " + format->name; },
                               [&] { return format->from_config(source.config, source.file); });
    if (!config)
        throw Error(ErrorCode::kInternal, "format " + format->name + " makes nothing of the config")
            .file(source.file);
    return config;
}

}  // namespace conclave::engine
