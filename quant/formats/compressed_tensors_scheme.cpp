#include "quant/formats/compressed_tensors_scheme.h"

#include <algorithm>
#include <array>
#include <cctype>
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

void parse_strategy(const Json& args, CtScheme& s, const std::string& file) {
    const int64_t group = get_int_or(args, "group_size", 0, -1, int64_t{1} << 31, file);
    if (find_json(args, "group_size", file) && group == 0)
        throw bad("'group_size' cannot be 0", file).expected("-1 or more than 0");
    const std::string inferred = group > 0 ? "group" : group == -1 ? "channel" : "tensor";
    const std::string strategy = get_string_or(args, "strategy", inferred, file);
    if (strategy == "channel") return;
    if (strategy == "tensor") {
        s.per_tensor = true;
    } else if (strategy == "group") {
        if (group == 0) throw bad("'strategy' group without a 'group_size'", file);
        s.columns = std::max<int64_t>(group, 0);
    } else if (one_of<4>(strategy, {"block", "tensor_group", "token", "attn_head"})) {
        s.refusal = "integer weights with strategy " + in_quotes(strategy);
    } else {
        throw bad("unknown 'strategy'", file)
            .expected("tensor, channel, group, block, tensor_group, token or attn_head")
            .found(in_quotes(strategy));
    }
}

void parse_actorder(const Json& args, const std::string& file) {
    // The tensors tell whether columns are permuted; only the spelling is checked.
    const Json* order = find_json(args, "actorder", file);
    if (!order || order->is_boolean()) return;
    if (!order->is_string() ||
        !one_of<4>(order->get<std::string>(), {"group", "weight", "static", "dynamic"}))
        throw bad("unknown 'actorder'", file)
            .expected("group, weight, static or dynamic")
            .found(describe_json(*order));
}

void parse_weights(const Json& args, CtScheme& s, const std::string& file) {
    const int64_t bits = get_int_or(args, "num_bits", 8, 1, 64, file);
    const std::string type = get_string_or(args, "type", "int", file);
    if (type != "int" && type != "float")
        throw bad("unknown 'type' of weights", file)
            .expected("int or float")
            .found(in_quotes(type));
    s.bits = static_cast<int>(bits);
    s.symmetric = get_bool_or(args, "symmetric", true, file);
    parse_actorder(args, file);
    parse_strategy(args, s, file);
    if (const Json* dynamic = find_json(args, "dynamic", file)) {
        const bool local =
            dynamic->is_string() && dynamic->get_ref<const std::string&>() == "local";
        if (!local && !dynamic->is_boolean())
            throw bad("'dynamic' is neither true, false nor 'local'", file)
                .found(describe_json(*dynamic));
        if (local || dynamic->get<bool>()) s.refusal = "weights with 'dynamic' scales";
    }
    if (type == "float")
        s.refusal = "float weights of " + std::to_string(bits) + " bits";
    else if (bits > 8)
        s.refusal = "integer weights of " + std::to_string(bits) + " bits";
}

/// A config group that is named by a preset: "W4A16": ["Linear"].
void parse_preset(const std::string& group, CtScheme& s, bool old) {
    std::string name = group;
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    if (name == "INT8" || name == "W8A8") return;
    const std::array<const char*, 5> rest = {"A4", "A8", "A16", "AFP8", "A16_ASYM"};
    if (name.size() < 4 || name[0] != 'W' || name[1] < '2' || name[1] > '8' ||
        !one_of(name.substr(2), rest)) {
        s.refusal = "the preset " + in_quotes(group);
        return;
    }
    s.bits = name[1] - '0';
    s.symmetric = !name.ends_with("_ASYM");
    // W8A16 was per channel at first; the shapes of the scales are checked in any case.
    s.columns = name == "W8A16" && old ? 0 : 128;
}

void check_format(const std::string& format, CtScheme& s) {
    constexpr std::array<const char*, 5> kServed = {"", "pack-quantized", "int-quantized",
                                                    "naive-quantized", "mixed-precision"};
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
    if (group.is_array()) {
        parse_preset(name, s, old_packing_);
        check_format(format, s);
    } else {
        const Json* weights = find_json(group, "weights", file_);
        if (weights)
            parse_weights(*weights, s, file_);
        else
            s.refusal = "a config group without 'weights'";
        check_format(get_string_or(group, "format", format, file_), s);
        s.output_activations = find_json(group, "output_activations", file_) != nullptr;
    }
    schemes_.push_back(std::move(s));
    const Json& targets = group.is_array() ? group : get_array(group, "targets", file_);
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
