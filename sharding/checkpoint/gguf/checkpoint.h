// Checkpoints of GGUF files: one file, or all parts of a split set.
#pragma once
#include <memory>
#include <string>

#include "sharding/checkpoint/reader.h"

namespace conclave::sharding {

/// A .gguf file or one that begins as they do; a directory of such files without safetensors.
bool looks_like_gguf(const std::string& path);

/// `path`: a file, which may be any part of a split set (NAME-00001-of-00003.gguf, the others
/// beside it), or a directory that holds one file or set. Tensors are as hugging_face_tensors()
/// presents them. Throws kMissingFile, kBadContent, kUnsupported.
std::shared_ptr<const Checkpoint> open_gguf(const std::string& path);

}  // namespace conclave::sharding
