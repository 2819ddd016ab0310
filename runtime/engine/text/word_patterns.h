// Matchers of the expressions with properties and look-ahead (those which are one set of
// characters are parsed, see char_set_pattern.h).
#pragma once
#include <cstddef>
#include <string_view>

#include "runtime/engine/text/unicode.h"

namespace conclave::engine {

using MatchFunction = size_t (*)(const Chars& text, size_t at);  ///< as Pattern::match

struct WordPattern {
    std::string_view regex;
    MatchFunction match;
};

/// nullptr where `regex` is not one of them.
const WordPattern* find_word_pattern(std::string_view regex);
const WordPattern& gpt2_word_pattern();

}  // namespace conclave::engine
