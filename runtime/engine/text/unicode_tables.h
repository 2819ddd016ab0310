// What libutf8proc 2.8 (Unicode 15.0) does not know or knows too early.
#pragma once
#include "runtime/engine/text/unicode.h"

namespace conclave::engine {

/// The class of a character that Unicode 15.1 or 16.0 added; 0 for any other.
CharClass class_since_15_1(char32_t c);

/// Added after Unicode 9.0 with a combining class or a decomposition, or part of such a
/// decomposition: normalization leaves it as it stands, and nothing moves or composes across it.
bool normalization_ignores(char32_t c);

}  // namespace conclave::engine
