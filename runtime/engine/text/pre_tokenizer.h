// The "pre_tokenizer" of tokenizer.json: cuts normalized text into the words that BPE encodes.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/json.h"

namespace conclave::engine {

/// Consecutive words of one text.
struct Words {
    struct Word {
        size_t begin, end;  ///< bytes of text
        bool first;         ///< begins where the whole input began
    };
    std::string text;
    std::vector<Word> words;

    std::string_view view(const Word& word) const {
        return std::string_view(text).substr(word.begin, word.end - word.begin);
    }
};

class PreTokenizer {
  public:
    virtual ~PreTokenizer() = default;
    /// Cuts each word on its own; may rewrite the text.
    virtual void run(Words& words) const = 0;
};

/// nullptr for null. Throws kUnsupported with the name of a kind, behaviour or pattern not served.
std::unique_ptr<const PreTokenizer> parse_pre_tokenizer(const Json* pre_tokenizer,
                                                        const std::string& file);

}  // namespace conclave::engine
