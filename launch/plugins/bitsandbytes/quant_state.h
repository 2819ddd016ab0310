// What the JSON text beside a 4-bit weight says.
#pragma once
#include <conclave/plugin.h>

namespace bitsandbytes {

/// Bytes of such a text: real ones have less than 300.
constexpr uint64_t kMostStateBytes = 64 << 10;

constexpr int64_t kLeastBlock = 32, kMostBlock = 4096;

struct QuantState {
    int64_t blocksize = 64;  ///< elements of a block; a power of two, kLeastBlock .. kMostBlock
    int64_t nested_blocksize = 256;  ///< blocks of a nested block; likewise
    float nested_offset = 0;
};

/// What is expected of it.
struct StateRequest {
    std::string tensor;          ///< whose bytes the text is; named in errors
    std::string kind;            ///< "nf4", "fp4"
    std::vector<int64_t> shape;  ///< of the weight
    bool nested = false;         ///< absmax is quantized itself
};

/// Throws kBadContent, and kUnsupported for kinds of state that are not served.
QuantState parse_quant_state(const conclave::PluginHost& host, std::string_view text,
                             const StateRequest& request);

std::string shape_text(const std::vector<int64_t>& shape);  ///< "[2, 3]"

}  // namespace bitsandbytes
