// The "post_processor" of tokenizer.json: tokens put before and behind a whole text.
#pragma once
#include <string>
#include <vector>

#include "runtime/base/json.h"
#include "runtime/engine/text/tokenizer.h"

namespace conclave::engine {

class PostProcessor {
  public:
    /// null adds nothing. Throws kUnsupported with the name of a kind not served.
    PostProcessor(const Json* post_processor, const std::string& file);
    std::vector<TokenId> run(std::vector<TokenId> ids) const;
    /// Of all it can add; -1 for none.
    TokenId largest_id() const;

  private:
    void parse(const Json& json, const std::string& file);
    void parse_template(const Json& json, const std::string& file);

    std::vector<TokenId> before_, after_;
};

}  // namespace conclave::engine
