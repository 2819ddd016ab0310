// Writes a safetensors checkpoint, its tensors in any order and by several processes at once:
// where every byte goes follows from names, shapes and types alone.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/base/output_file.h"
#include "sharding/checkpoint/reader.h"

namespace conclave::sharding {

struct OutputTensor {
    std::string name;
    std::vector<int64_t> shape;
};

class CheckpointWriter {
  public:
    /// All tensors in one type (kF32, kBF16), in files of at most `max_file_bytes` of data each (a
    /// larger tensor has a file of its own). Names are unique.
    CheckpointWriter(std::string directory, std::vector<OutputTensor> tensors, StoredType type,
                     uint64_t max_file_bytes);

    /// One process: makes the files with their headers, and the index where there are several.
    void create();
    /// The others, afterwards.
    void open();
    /// Removes what create() made; never throws.
    void discard() noexcept;

    /// Elements [first, first + bytes / width) of a tensor. Any thread.
    void write(const std::string& tensor, int64_t first, std::span<const std::byte> bytes) const;
    void close();

    int element_bytes() const { return stored_type_bits(type_) / 8; }
    uint64_t bytes() const { return bytes_; }  ///< of all tensors
    int64_t tensors() const { return static_cast<int64_t>(places_.size()); }
    const std::vector<std::string>& files() const { return names_; }

  private:
    struct Place {
        size_t file = 0;
        uint64_t offset = 0;  ///< from the begin of the file
        uint64_t bytes = 0;
    };
    std::string path(const std::string& name) const { return directory_ + "/" + name; }

    std::string directory_;
    StoredType type_;
    std::vector<std::string> names_, headers_;
    std::vector<uint64_t> sizes_;
    std::string index_;  ///< empty: one file
    std::unordered_map<std::string, Place> places_;
    std::vector<OutputFile> files_;
    uint64_t bytes_ = 0;
};

}  // namespace conclave::sharding
