#include <bitsandbytes/quant_state.h>

#include <cmath>

namespace bitsandbytes {

using conclave::Error;
using conclave::ErrorCode;
using conclave::Json;

namespace {

int64_t power_of_two(const conclave::PluginHost& host, const Json& state, const char* key,
                     const StateRequest& request) {
    const int64_t v = host.get_int(state, key, nullptr, kLeastBlock, kMostBlock, request.tensor);
    if ((v & (v - 1)) == 0) return v;
    throw Error(ErrorCode::kBadContent, std::string("'") + key + "' is not a power of two")
        .found(std::to_string(v));
}

void check_shape(const Json& state, const StateRequest& request) {
    const auto at = state.find("shape");
    std::vector<int64_t> found;
    bool well_formed = at != state.end() && at->is_array() && at->size() <= 8;
    if (well_formed)
        for (const Json& extent : *at) {
            well_formed = well_formed && extent.is_number_unsigned() &&
                          extent.get<uint64_t>() <= uint64_t{INT64_MAX};
            if (well_formed) found.push_back(extent.get<int64_t>());
        }
    if (well_formed && found == request.shape) return;
    throw Error(ErrorCode::kBadContent, "'shape' is not that of the model's matrix")
        .expected(shape_text(request.shape))
        .found(well_formed ? shape_text(found) : "no list of a few extents");
}

QuantState parse(const conclave::PluginHost& host, std::string_view text,
                 const StateRequest& request) {
    const Json state = host.parse_json(text, request.tensor);
    if (!state.is_object()) throw Error(ErrorCode::kBadContent, "the text is no JSON object");
    const std::string kind = host.get_string(state, "quant_type", nullptr, request.tensor);
    if (kind != request.kind)
        throw Error(ErrorCode::kBadContent, "'quant_type' is not that of the tensor's name")
            .expected(request.kind)
            .found(kind);
    check_shape(state, request);
    QuantState out;
    out.blocksize = power_of_two(host, state, "blocksize", request);
    const bool states_nested =
        state.contains("nested_blocksize") || state.contains("nested_offset");
    if (states_nested != request.nested)
        throw Error(ErrorCode::kBadContent, "state and absmax disagree about double quantization")
            .expected(request.nested ? "'nested_blocksize' and 'nested_offset'"
                                     : "none of 'nested_blocksize' and 'nested_offset'")
            .found(states_nested ? "at least one of them" : "neither");
    if (!request.nested) return out;
    out.nested_blocksize = power_of_two(host, state, "nested_blocksize", request);
    const std::string f32 = "float32";
    const std::string type = host.get_string(state, "nested_dtype", &f32, request.tensor);
    if (type != f32)
        throw Error(ErrorCode::kUnsupported, "'nested_dtype' is not served")
            .expected(f32)
            .found(type);
    constexpr double kMost = 3.4e38;  // stays finite in f32
    out.nested_offset = static_cast<float>(
        host.get_double(state, "nested_offset", nullptr, -kMost, kMost, request.tensor));
    return out;
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string s = "[";
    for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
    return s + "]";
}

QuantState parse_quant_state(const conclave::PluginHost& host, std::string_view text,
                             const StateRequest& request) {
    try {
        return parse(host, text, request);
    } catch (const Error& e) {
        throw Error(e).tensor(request.tensor);
    }
}

}  // namespace bitsandbytes
