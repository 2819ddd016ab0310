// Regular expressions from checkpoints, which are hostile input: Perl syntax (Python's, for what
// configs use), bounded in time and memory.
#pragma once
#include <memory>
#include <string>

namespace conclave::quant {

class Pattern {
  public:
    /// Throws kBadContent for what is no pattern.
    explicit Pattern(const std::string& text);

    /// Whether a match begins with the first character of `name` (Python's re.match) or anywhere
    /// (re.search). Any thread. Throws kBadContent for a pattern that takes too long.
    bool matches_start(const std::string& name) const { return matches(name, true); }
    bool found_in(const std::string& name) const { return matches(name, false); }

  private:
    bool matches(const std::string& name, bool from_start) const;

    std::string text_;
    std::shared_ptr<const void> code_;
};

/// For a pattern that is asked once.
inline bool matches_start(const std::string& pattern, const std::string& name) {
    return Pattern(pattern).matches_start(name);
}
inline bool found_in(const std::string& pattern, const std::string& name) {
    return Pattern(pattern).found_in(name);
}

}  // namespace conclave::quant
