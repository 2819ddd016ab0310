#include "quant/formats/quark_config.h"

#include <string_view>

#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace conclave::quant {
namespace {

/// Each is tried on each module: more would take minutes.
constexpr size_t kMostPatterns = 256;

/// A shell pattern as a regular expression: * and ?; [ stands for itself.
std::string glob_to_regex(const std::string& glob) {
    std::string regex = "^";
    for (const char c : glob) {
        if (c == '*')
            regex += ".*";
        else if (c == '?')
            regex += '.';
        else if (std::string_view("\\^$.|+()[]{}").find(c) != std::string_view::npos)
            regex += std::string("\\") + c;
        else
            regex += c;
    }
    return regex + "$";
}

std::string string_or(const Json& spec, const char* key, const std::string& file) {
    return get_string_or(spec, key, "", file);
}

void read_scheme(const Json& spec, const std::string& file, QuarkTensor& t) {
    const std::string scheme = string_or(spec, "qscheme", file);
    if (scheme == "per_tensor") {
        t.scheme = QuarkScheme::kTensor;
    } else if (scheme == "per_channel" || scheme == "per_token") {
        t.scheme = QuarkScheme::kChannel;
    } else if (scheme == "per_group") {
        t.scheme = QuarkScheme::kGroup;
        t.group = get_int(spec, "group_size", 1, INT32_MAX, file);
    } else if (scheme == "per_block") {
        t.scheme = QuarkScheme::kBlock;
        const Json* block = find_json(spec, "block_size", file);
        if (!block || !block->is_array() || block->size() != 2)
            throw Error(ErrorCode::kBadContent, "'block_size' of per_block is not two numbers")
                .file(file)
                .found(block ? describe_json(*block) : "nothing");
        t.block_rows = as_int((*block)[0], "block_size", 1, INT32_MAX, file);
        t.block_cols = as_int((*block)[1], "block_size", 1, INT32_MAX, file);
    } else {
        t.refusal = "qscheme " + in_quotes(scheme);
    }
}

QuarkTensor read_one(const Json& spec, const std::string& file) {
    QuarkTensor t;
    t.dtype = string_or(spec, "dtype", file);
    read_scheme(spec, file, t);
    t.dynamic = get_bool_or(spec, "is_dynamic", false, file);
    t.symmetric = get_bool_or(spec, "symmetric", true, file);
    const bool known = t.dtype == "fp8_e4m3" || t.dtype == "fp4" || t.dtype == "fp6_e3m2" ||
                       t.dtype == "fp6_e2m3" || t.dtype == "int8" || t.dtype == "int4" ||
                       t.dtype == "uint4";
    const std::string format = string_or(spec, "scale_format", file);
    const std::string mode = string_or(spec, "scale_calculation_mode", file);
    t.powers = format == "e8m0";
    const int64_t axis = get_int_or(spec, "ch_axis", -1, INT32_MIN, INT32_MAX, file);
    if (!known) t.refusal = "dtype " + in_quotes(t.dtype);
    if (!format.empty() && format != "e8m0" && format != "float32")
        t.refusal = "scale_format " + in_quotes(format);
    if (t.dynamic && !mode.empty() && mode != "even")
        t.refusal = "scale_calculation_mode " + in_quotes(mode);
    // Columns for groups (the last axis, of two), rows for channels.
    if (t.scheme == QuarkScheme::kGroup && axis != -1 && axis != 1)
        t.refusal = "groups along ch_axis " + std::to_string(axis);
    return t;
}

/// A spec may be null, an object, or a list of stages.
std::optional<QuarkTensor> read_spec(const Json& layer, const char* key, const std::string& file) {
    const Json* spec = find_json(layer, key, file);
    if (!spec) return std::nullopt;
    if (spec->is_object()) return read_one(*spec, file);
    if (!spec->is_array() || spec->empty() || spec->size() > 8)
        throw Error(ErrorCode::kBadContent, "a tensor's settings are no object and no short list")
            .file(file)
            .expected(std::string("'") + key + "' as an object or a list of objects")
            .found(describe_json(*spec));
    std::vector<QuarkTensor> stages;
    std::string names;
    for (const Json& one : *spec) {
        if (!one.is_object())
            throw Error(ErrorCode::kBadContent, "a stage of quantization is not an object")
                .file(file)
                .found(describe_json(one));
        stages.push_back(read_one(one, file));
        names += (names.empty() ? "" : ", ") + printable(stages.back().dtype);
    }
    QuarkTensor t = stages[0];
    if (stages.size() == 1) return t;
    const QuarkTensor& scales = stages[1];
    const bool nvfp4 = stages.size() == 2 && t.dtype == "fp4" && t.scheme == QuarkScheme::kGroup &&
                       scales.dtype == "fp8_e4m3" && scales.scheme == QuarkScheme::kTensor;
    if (nvfp4)
        t.dtype = "nvfp4";
    else
        t.refusal = "stages of " + names;
    return t;
}

QuarkLayer read_layer(const Json& layer, const std::string& what, const std::string& file) {
    if (!layer.is_object())
        throw Error(ErrorCode::kBadContent, "the settings of a layer are not an object")
            .file(file)
            .expected("an object for " + what)
            .found(describe_json(layer));
    QuarkLayer l;
    l.weight = read_spec(layer, "weight", file);
    l.input = read_spec(layer, "input_tensors", file);
    return l;
}

const Json* object_or_null(const Json& config, const char* key, const std::string& file) {
    return find_json(config, key, file) ? &get_object(config, key, file) : nullptr;
}

}  // namespace

QuarkConfigRules::QuarkConfigRules(const Json& config, const std::string& file) : file_(file) {
    if (const Json* all = object_or_null(config, "global_quant_config", file))
        all_ = read_layer(*all, "global_quant_config", file);
    // Classes of layers: only linears are read here.
    if (const Json* types = object_or_null(config, "layer_type_quant_config", file))
        for (const auto& [type, layer] : types->items())
            if (type.find("Linear") != std::string::npos)
                all_ = read_layer(layer, in_quotes(type), file);
    if (const Json* layers = object_or_null(config, "layer_quant_config", file))
        for (const auto& [name, layer] : layers->items()) {
            QuarkLayer l = read_layer(layer, in_quotes(name), file);
            if (name.find_first_of("*?") == std::string::npos) {
                exact_[name] = std::move(l);
                continue;
            }
            if (patterns_.size() == kMostPatterns)
                throw Error(ErrorCode::kUnsupported, "'layer_quant_config' has too many patterns")
                    .file(file)
                    .expected("at most " + std::to_string(kMostPatterns));
            patterns_.emplace_back(Pattern(glob_to_regex(name)), std::move(l));
        }
    const Json* how = object_or_null(config, "export", file);
    if (!how) return;
    const std::string format = get_string_or(*how, "weight_format", "real_quantized", file);
    if (format != "real_quantized")
        throw Error(ErrorCode::kUnsupported, "this 'weight_format' of quark is not served")
            .file(file)
            .expected("real_quantized")
            .found(printable(format));
    const std::string pack = get_string_or(*how, "pack_method", "order", file);
    if (pack != "reorder" && pack != "order")
        throw Error(ErrorCode::kUnsupported, "this 'pack_method' of quark is not served")
            .file(file)
            .expected("reorder or order")
            .found(printable(pack));
    reordered_ = pack == "reorder";
}

const QuarkLayer& QuarkConfigRules::find(const std::string& module) const {
    if (const auto it = exact_.find(module); it != exact_.end()) return it->second;
    const QuarkLayer* found = nullptr;
    for (const auto& [pattern, layer] : patterns_) {
        if (!pattern.matches_start(module)) continue;
        // Objects of JSON have no order here, so no pattern comes first.
        if (found && !(*found == layer))
            throw Error(ErrorCode::kBadContent,
                        "patterns of 'layer_quant_config' contradict each other")
                .file(file_)
                .found("two settings for " + in_quotes(module));
        found = &layer;
    }
    return found ? *found : all_;
}

}  // namespace conclave::quant
