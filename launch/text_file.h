// Files that the user names to be read as text.
#pragma once
#include <string>

namespace conclave::launch {

/// The whole file, or all that a pipe gives. `what` is for messages: "the prompt". Throws
/// kMissingFile, and kUsage where it is larger than any text that can be turned into tokens.
std::string read_text(const std::string& path, const std::string& what);

}  // namespace conclave::launch
