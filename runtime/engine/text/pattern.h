// The regular expressions of tokenizer.json: each known one has a matcher of its own, found by its
// exact text, so that no regular expression is ever run and matching is linear.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/engine/text/unicode.h"

namespace conclave::engine {

class Pattern {
  public:
    virtual ~Pattern() = default;
    /// The end of the match that begins at `at` < text.size(); 0: none begins there.
    virtual size_t match(const Chars& text, size_t at) const = 0;
};

/// Of a regular expression; nullptr where it is not known.
std::unique_ptr<const Pattern> make_pattern(std::string_view regex);
/// Of {"String": ...} or {"Regex": ...}. Throws kUnsupported with the unknown expression.
std::unique_ptr<const Pattern> parse_pattern(const Json& pattern, const std::string& file);
/// What ByteLevel splits by.
std::unique_ptr<const Pattern> gpt2_pattern();

struct Span {
    size_t begin, end;  ///< bytes
    bool match;         ///< or what lies between two
};
/// Cuts all of `text` into non-empty matches and gaps. `chars` is scratch.
void find_spans(const Pattern& pattern, std::string_view text, Chars& chars,
                std::vector<Span>& spans);
/// Throws kResource where the result is longer than a text may be.
std::string replace_matches(const Pattern& pattern, std::string_view text,
                            std::string_view content);

}  // namespace conclave::engine
