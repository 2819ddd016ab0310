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

std::optional<std::string> ModelFiles::document(const std::string& name, uint64_t max_bytes) const {
    if (container) return container->document(name);
    const std::string file = (fs::path(directory) / name).string();
    if (!is_there(file)) return std::nullopt;
    return File(file).read_whole(max_bytes);
}

bool ModelFiles::has(const std::string& name) const {
    if (!container) return is_there((fs::path(directory) / name).string());
    try {
        return container->document(name).has_value();
    } catch (const Error&) {
        return false;
    }
}

namespace {

/// An object of JSON: a document of the model, or nothing where there is none.
std::optional<quant::Sidecar> read_object(const ModelFiles& files, const std::string& name) {
    const std::string path = files.path_of(name);
    JsonLimits limits;
    limits.file = path;
    const std::optional<std::string> text = files.document(name, limits.max_bytes);
    if (!text) return std::nullopt;
    Json content = parse_json(*text, limits);
    if (!content.is_object())
        throw Error(ErrorCode::kBadContent, name + " is not an object")
            .file(path)
            .found(describe_json(content));
    return quant::Sidecar{std::move(content), path};
}

}  // namespace

ModelFiles open_model_place(const std::string& path, const Extensions& extensions,
                            const std::string& load_format) {
    ModelFiles files;
    std::error_code none;
    const fs::path p(path);
    if (!fs::exists(p, none))
        throw Error(ErrorCode::kMissingFile, "no such model directory or file").file(path);
    files.directory = fs::is_directory(p, none) ? path
                      : p.has_parent_path()     ? p.parent_path().string()
                                                : std::string(".");
    const sharding::CheckpointReaders& readers = extensions.readers;
    if (readers.self_contained(path, load_format)) {
        files.container = readers.open(path, load_format == "dummy" ? "auto" : load_format);
        files.directory = path;
    }
    return files;
}

ModelFiles open_model_files(const std::string& path, bool weights, const Extensions& extensions,
                            const std::string& load_format) {
    ModelFiles files = open_model_place(path, extensions, load_format);
    files.config_file = files.path_of("config.json");
    files.generation_file = files.path_of("generation_config.json");
    auto config = read_object(files, "config.json");
    if (!config) throw Error(ErrorCode::kMissingFile, "no such file").file(files.config_file);
    files.config = std::move(config->content);
    if (auto generation = read_object(files, "generation_config.json"))
        files.generation = std::move(generation->content);
    files.quantization = extensions.formats.source(
        files.config, files.config_file,
        [&](const std::string& name) { return read_object(files, name); });
    files.checkpoint = !weights          ? sharding::Checkpoint::none()
                       : files.container ? files.container
                                         : extensions.readers.open(path, load_format);
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
