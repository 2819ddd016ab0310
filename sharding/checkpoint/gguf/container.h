// The header of one GGUF file: counts, key-value pairs, tensor infos; the data follows.
#pragma once
#include <cstdint>
#include <vector>

#include "runtime/base/file.h"
#include "sharding/checkpoint/gguf/contents.h"
#include "sharding/checkpoint/gguf/metadata.h"
#include "sharding/checkpoint/reader.h"

namespace conclave::sharding {

/// The first bytes of a file: "GGUF".
constexpr uint64_t kGgufMagic = 0x46554747;
/// Bounds memory in a file of many gigabytes; a vocabulary of a million tokens takes some 50 MB.
constexpr uint64_t kMaxGgufHeaderBytes = uint64_t{256} << 20;

struct GgufHeader {
    GgufMetadata metadata;
    std::vector<GgufTensor> tensors;  ///< as the file lists them; offsets from its start
    uint64_t hash = 0;                ///< of the header's bytes
};

/// Reads and checks the header; `index` becomes GgufTensor::file. Memory stays proportional to the
/// header whatever it says. Throws kBadContent, and kUnsupported for versions and types of tensors
/// that are known but not served; both name file, key or tensor, expected and found.
GgufHeader read_gguf_header(const File& file, int index, ReadCounters& counters);

}  // namespace conclave::sharding
