// The "decoder" of tokenizer.json: tokens back to text. There is one way to decode, token by token
// with whatever must be held back held back; decoding at once is the same run to the end, so the
// two cannot differ.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/json.h"

namespace conclave::engine {

/// One step of one decoding: takes strings in, passes strings on. Every string is valid UTF-8.
class DecoderStage {
  public:
    virtual ~DecoderStage() = default;
    /// Appends to `out` what can be passed on after `token`.
    virtual void add(const std::string& token, std::vector<std::string>& out) = 0;
    /// Appends what was held back.
    virtual void finish(std::vector<std::string>& out) { (void)out; }
};

/// The recipe, shared by all decodings.
class Decoder {
  public:
    virtual ~Decoder() = default;
    /// Appends new stages, each to be fed by the one before it.
    virtual void append_stages(std::vector<std::unique_ptr<DecoderStage>>& stages) const = 0;
};

/// Of null: tokens joined by spaces. Throws kUnsupported with the name of a kind not served.
std::unique_ptr<const Decoder> parse_decoder(const Json* decoder, const std::string& file);

/// One decoding under way.
class Decoding {
  public:
    explicit Decoding(const Decoder& decoder) { decoder.append_stages(stages_); }
    std::string add(const std::string& token);
    std::string finish();

  private:
    /// Feeds `strings` to the stages from `stage` on; returns what leaves the last.
    std::string push(size_t stage, std::vector<std::string> strings);

    std::vector<std::unique_ptr<DecoderStage>> stages_;
};

}  // namespace conclave::engine
