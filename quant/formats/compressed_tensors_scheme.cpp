#include "quant/formats/compressed_tensors_scheme.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "runtime/base/error.h"
#include "runtime/base/json.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

template <size_t kCount>
bool one_of(const std::string& text, const std::array<const char*, kCount>& known) {
    return std::any_of(known.begin(), known.end(), [&](const char* k) { return text == k; });
}

[[noreturn]] void unsupported(const std::string& what, const std::string& file) {
    throw Error(ErrorCode::kUnsupported, what + " is not served").file(file);
}

Error bad(const std::string& what, const std::string& file) {
    return std::move(Error(ErrorCode::kBadContent, what).file(file));
}

/// null, {} and objects of nothing but these.
bool is_empty_object(const Json& value) {
    if (value.is_null()) return true;
    if (!value.is_object()) return false;
    return std::all_of(value.begin(), value.end(), is_empty_object);
}

/// "0.17.1" -> (0, 17). Nothing for what is no version.
std::optional<std::pair<int, int>> parse_version(const std::string& text) {
    int major = 0, minor = 0;
    if (std::sscanf(text.c_str(), "%6d.%6d", &major, &minor) != 2) return std::nullopt;
    return std::pair{major, minor};
}

void check_format(const std::string& format, CtScheme& s) {
    constexpr std::array<const char*, 9> kServed = {"",
                                                    "pack-quantized",
                                                    "int-quantized",
                                                    "naive-quantized",
                                                    "float-quantized",
                                                    "nvfp4-pack-quantized",
                                                    "mxfp4-pack-quantized",
                                                    "mxfp8-quantized",
                                                    "mixed-precision"};
    if (s.refusal.empty() && !one_of(format, kServed))
        s.refusal = "the format " + in_quotes(format);
}

}  // namespace

CtSchemes::CtSchemes(const Json& config, const std::string& file) : file_(file) {
    const std::string format = get_string_or(config, "format", "", file);
    if (one_of<4>(format, {"marlin-24", "sparse-bitmask", "sparse-24-bitmask", "sparse-24"}))
        unsupported("the format " + in_quotes(format), file);
    if (const Json* transforms = find_json(config, "transform_config", file))
        if (!is_empty_object(*transforms))
            unsupported("'transform_config' (rotations of activations)", file);
    if (const Json* sparsity = find_json(config, "sparsity_config", file);
        sparsity && !is_empty_object(*sparsity)) {
        const std::string kind = get_string_or(*sparsity, "format", "dense", file);
        if (kind != "dense") unsupported("'sparsity_config' with format " + in_quotes(kind), file);
    }
    const std::string version = get_string_or(config, "version", "", file);
    if (const auto parsed = parse_version(version)) old_packing_ = *parsed < std::pair{0, 18};
    const Json* groups = find_json(config, "config_groups", file);
    if (!groups) return;
    if (!groups->is_object())
        throw bad("'config_groups' is no object", file).found(describe_json(*groups));
    for (const auto& [name, group] : groups->items()) add_group(name, group, format);
}

void CtSchemes::add_group(const std::string& name, const Json& group, const std::string& format) {
    CtScheme s;
    s.group = name;
    const bool named = group.is_array();
    const Json preset = named ? ct_preset(name, old_packing_) : Json();
    const Json& args = named ? preset : group;
    const std::string own = named ? format : get_string_or(group, "format", format, file_);
    if (preset.is_null() && named) {
        s.refusal = "the preset " + in_quotes(name);
    } else if (const Json* weights = find_json(args, "weights", file_)) {
        s.weights = parse_ct_args(*weights, file_);
        s.refusal = ct_weights_refusal(s.weights);
        if (const Json* inputs = find_json(args, "input_activations", file_)) {
            s.inputs = parse_ct_args(*inputs, file_);
            if (s.inputs->strategy == CtStrategy::kGroup) s.inputs->powers |= own.starts_with("mx");
            if (s.refusal.empty()) s.refusal = ct_inputs_refusal(*s.inputs);
        }
    } else {
        s.refusal = "a config group without 'weights'";
    }
    check_format(own, s);
    s.output_activations = !named && find_json(group, "output_activations", file_) != nullptr;
    schemes_.push_back(std::move(s));
    const Json& targets = named ? group : get_array(group, "targets", file_);
    for (const Json& target : targets) {
        if (!target.is_string())
            throw bad("a target of config group " + in_quotes(name) + " is no string", file_)
                .found(describe_json(target));
        add_target(target.get<std::string>(), schemes_.size() - 1);
    }
}

void CtSchemes::add_target(const std::string& target, size_t scheme) {
    if (!target.starts_with("re:")) {
        names_.insert_or_assign(target, scheme);
        return;
    }
    try {
        patterns_.insert_or_assign(target, std::pair{Pattern(target.substr(3)), scheme});
    } catch (Error& e) {
        throw Error(e).file(file_);
    }
}

const CtScheme* CtSchemes::find(const std::string& module) const {
    if (const auto it = names_.find(module); it != names_.end()) return &schemes_[it->second];
    for (const auto& [text, entry] : patterns_)
        if (entry.first.matches_start(module)) return &schemes_[entry.second];
    const char* kind = module.ends_with("embed_tokens") ? "Embedding" : "Linear";
    for (const char* name : {kind, "Module"})
        if (const auto it = names_.find(name); it != names_.end()) return &schemes_[it->second];
    return nullptr;
}

}  // namespace conclave::quant
