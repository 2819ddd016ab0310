// Texts that end a generation, looked for in the text as it is decoded. Neither they nor what
// follows them is passed on.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace conclave::engine {

class StopStrings {
  public:
    static constexpr size_t kMost = 16;
    static constexpr size_t kMostBytes = 4096;  ///< of one of them

    /// Throws kUsage for more than kMost, for an empty one, one too long, and one that is not
    /// valid UTF-8 (it could never match).
    explicit StopStrings(std::vector<std::string> texts);

    /// What can be passed on after `text`, which is whole characters, as is the result. What may
    /// be the begin of a stop string is held back. The first to be complete ends it all; of
    /// several that end together, the longest. How the text is cut into pieces does not matter.
    std::string add(std::string_view text);
    /// What is still held back.
    std::string finish();
    bool matched() const { return matched_; }

  private:
    struct Text {
        std::string bytes;
        std::vector<size_t> fallback;  ///< [n]: longest proper border of the first n bytes
        size_t length = 0;             ///< how many of its bytes end what was seen so far

        void step(char c);
    };

    std::vector<Text> texts_;
    std::string held_;
    bool matched_ = false;
};

}  // namespace conclave::engine
