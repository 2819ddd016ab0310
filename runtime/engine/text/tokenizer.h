// tokenizer.json (Hugging Face tokenizers) to ids and back. The file is hostile input.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace conclave::engine {

using TokenId = int32_t;

class Tokenizer {
  public:
    /// `json`: contents of tokenizer.json; `file`: its name, for messages. Throws kBadContent, or
    /// kUnsupported with the name of the component (model, normalizer, pattern ...) not served.
    static std::shared_ptr<const Tokenizer> parse(std::string_view json, const std::string& file);

    virtual ~Tokenizer() = default;
    /// One more than the largest id.
    virtual int64_t vocab_size() const = 0;
    /// `text` is made valid UTF-8 first (each bad byte becomes U+FFFD). `add_special_tokens`:
    /// what the post-processor adds (BOS ...).
    virtual std::vector<TokenId> encode(std::string_view text, bool add_special_tokens) const = 0;
    /// Unknown ids give nothing. Always valid UTF-8.
    virtual std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const = 0;

    /// Decodes token by token; the concatenation of all pieces and finish() equals decode() of all
    /// ids, and no piece ends inside a UTF-8 character.
    class Stream {
      public:
        virtual ~Stream() = default;
        virtual std::string add(TokenId id) = 0;
        virtual std::string finish() = 0;
    };
    /// The tokenizer must outlive it.
    virtual std::unique_ptr<Stream> stream(bool skip_special_tokens) const = 0;
};

}  // namespace conclave::engine
