// model.safetensors.index.json: which file holds which tensor.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace conclave::sharding {

struct SafetensorsIndex {
    std::vector<std::string> files;                    ///< plain names, sorted, no duplicates
    std::vector<std::pair<std::string, int>> tensors;  ///< name, index into files; sorted
};

/// Throws kMissingFile, kBadContent.
SafetensorsIndex read_safetensors_index(const std::string& path);

}  // namespace conclave::sharding
