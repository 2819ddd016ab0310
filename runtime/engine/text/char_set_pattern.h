// Expressions that are one set of characters: [...] or [...]+, with \s? before it where wanted, as
// DeepSeek and others split scripts apart. Sets are written out in long lists, so they are parsed
// rather than known by heart.
#pragma once
#include <memory>
#include <string_view>

#include "runtime/engine/text/pattern.h"

namespace conclave::engine {

/// nullptr unless `regex`, valid UTF-8, is of that form with nothing in the set but characters,
/// ranges and the escapes \r \n \t \\ \] \[ \- \^ \. \/.
std::unique_ptr<const Pattern> make_char_set_pattern(std::string_view regex);

}  // namespace conclave::engine
