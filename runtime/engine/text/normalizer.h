// The "normalizer" of tokenizer.json: text to text, before it is split.
#pragma once
#include <memory>
#include <string>

#include "runtime/base/json.h"

namespace conclave::engine {

class Normalizer {
  public:
    virtual ~Normalizer() = default;
    virtual std::string run(std::string text) const = 0;
    /// Whether it takes spaces off the beginning of a text.
    virtual bool strips_left() const { return false; }
};

/// nullptr for null. Throws kUnsupported with the name of a kind not served.
std::unique_ptr<const Normalizer> parse_normalizer(const Json* normalizer, const std::string& file);

}  // namespace conclave::engine
