// The header of one safetensors file: 8 bytes of length, JSON, then the tensors without a gap.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/file.h"
#include "sharding/checkpoint/metadata.h"
#include "sharding/checkpoint/reader.h"

namespace conclave::sharding {

/// The format's own limit on the JSON part.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct SafetensorsHeader {
    std::vector<StoredTensor> tensors;  ///< sorted by name; offsets from the start of the file
    uint64_t hash = 0;                  ///< of the JSON bytes
    Metadata metadata;                  ///< sealed
};

/// Reads and checks the header; `index` becomes StoredTensor::file. Memory stays proportional to
/// the header whatever it says. Throws kBadContent naming file, tensor, expected and found.
SafetensorsHeader read_safetensors_header(const File& file, int index, ReadCounters& counters);

/// File::read, counted.
void counted_read(const File& file, uint64_t offset, std::span<std::byte> out,
                  ReadCounters& counters);

}  // namespace conclave::sharding
