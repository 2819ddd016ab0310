#include <algorithm>
#include <utility>

#include "quant/formats/formats.h"
#include "runtime/base/error.h"

namespace conclave::quant {
namespace {

QuantizationFormat named(std::string name, QuantizationFormat format) {
    format.name = std::move(name);
    return format;
}

/// The first that claims the config.
auto claimer(const std::vector<QuantizationFormat>& formats, const Json& config) {
    return std::find_if(formats.begin(), formats.end(),
                        [&](const QuantizationFormat& f) { return f.claims && f.claims(config); });
}

QuantizationFormat unquantized_format() {
    return {"none",
            {},
            [](const Json&, const std::string&) { return unquantized_config(); },
            {{CodeType::kF32}, {CodeType::kF16}, {CodeType::kBF16}}};
}

}  // namespace

QuantizationRegistry QuantizationRegistry::built_in() {
    QuantizationRegistry registry;
    registry.add(unquantized_format());
    registry.add(gptq_format());
    registry.add(awq_format());
    registry.add(auto_round_format());
    registry.add(named("inc", auto_round_format()));
    registry.add(named("intel/auto-round", auto_round_format()));
    registry.add(marlin_format());
    registry.add(compressed_tensors_format());
    registry.add(hqq_format());
    registry.add(fp8_format());
    registry.add(modelopt_format());
    registry.add(quark_format());
    registry.add(mxfp4_format());
    registry.add(torchao_format());
    registry.add(deepspeedfp_format());
    registry.add(gguf_format());
    return registry;
}

void QuantizationRegistry::add(QuantizationFormat format) {
    if (find(format.name))
        throw Error(ErrorCode::kUsage, "quantization format '" + format.name + "' is taken");
    formats_.push_back(std::move(format));
}

const QuantizationFormat* QuantizationRegistry::find(std::string_view name) const {
    const auto it = std::find_if(formats_.begin(), formats_.end(),
                                 [&](const QuantizationFormat& f) { return f.name == name; });
    return it == formats_.end() ? nullptr : &*it;
}

std::vector<std::string> QuantizationRegistry::names() const {
    std::vector<std::string> out;
    for (const QuantizationFormat& f : formats_) out.push_back(f.name);
    return out;
}

/// What the files say, before another format claims it.
QuantizationSource QuantizationRegistry::stated_source(const Json& model_config,
                                                       const std::string& config_file,
                                                       const ReadSidecar& read) const {
    const Json* q = find_json(model_config, "quantization_config", config_file);
    if (!q) q = find_json(model_config, "compression_config", config_file);
    if (q) {
        if (!q->is_object())
            throw Error(ErrorCode::kBadContent, "quantization_config is not an object")
                .file(config_file)
                .found(describe_json(*q));
        const auto claims = claimer(formats_, *q);
        const bool claimed = claims != formats_.end();
        std::string method = claimed ? get_string_or(*q, "quant_method", claims->name, config_file)
                                     : get_string(*q, "quant_method", config_file);
        QuantizationSource s{method, method, *q, config_file};
        const QuantizationFormat* format = find(method);
        if (claimed) format = &*claims, s.method = claims->name;
        if (!format || !format->complete) return s;
        for (const std::string& name : format->config_files)
            if (const auto beside = read(name))
                s.config = format->complete(std::move(s.config), beside->content, beside->path);
        return s;
    }
    for (const QuantizationFormat& f : formats_)
        for (const std::string& name : f.config_files) {
            auto beside = read(name);
            if (!beside) continue;
            Json config = f.complete ? f.complete(Json::object(), beside->content, beside->path)
                                     : std::move(beside->content);
            std::string method = get_string_or(config, "quant_method", f.name, beside->path);
            return {method, method, std::move(config), beside->path};
        }
    QuantizationSource none;
    none.file = config_file;
    return none;
}

QuantizationSource QuantizationRegistry::source(const Json& model_config,
                                                const std::string& config_file,
                                                const ReadSidecar& read) const {
    QuantizationSource source = stated_source(model_config, config_file, read);
    const auto it = claimer(formats_, source.config);
    if (it != formats_.end()) source.method = it->name;
    return source;
}

}  // namespace conclave::quant
