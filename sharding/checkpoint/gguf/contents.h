// What the headers of a GGUF checkpoint say: one file, or all parts of a split one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sharding/checkpoint/gguf/metadata.h"
#include "sharding/checkpoint/reader.h"

namespace conclave::sharding {

struct GgufTensor {
    std::string name;  ///< "blk.0.attn_q.weight"
    StoredType type = StoredType::kF32;
    std::vector<int64_t> dims;  ///< the fastest first: a matrix [n, k] has {k, n}
    int file = 0;
    uint64_t offset = 0;  ///< from the start of that file
    uint64_t bytes = 0;
};

struct GgufContents {
    std::string path;  ///< of the first file, for messages
    GgufMetadata metadata;
    std::vector<GgufTensor> tensors;  ///< as the files list them; names are unique
    /// All stored bytes of a tensor. Any thread.
    std::function<void(const GgufTensor&, std::span<std::byte> out)> read;

    const GgufTensor* find(std::string_view name) const;
};

/// The tensors as a checkpoint of Hugging Face's has them: under its names for the architecture,
/// extents in its order, each expert a matrix of its own (a slab of the stored tensor). Tensors
/// that have no such name keep their own. Throws kUnsupported for an architecture that is not
/// known, kBadContent for shapes that cannot be.
std::vector<StoredTensor> hugging_face_tensors(const GgufContents& contents);

/// Checkpoint::document() of the names that it lists: what the metadata, and the shapes of tensors,
/// say of the model, in the form of Hugging Face's files.
std::optional<std::string> gguf_document(const GgufContents& contents, std::string_view name);

}  // namespace conclave::sharding
