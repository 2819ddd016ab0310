// The parts of gguf_document(): files of Hugging Face's, made of GGUF's metadata.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/json.h"
#include "sharding/checkpoint/gguf/contents.h"

namespace conclave::sharding {

/// config.json. Throws kUnsupported for an architecture, or a trait of one, that is not served.
Json gguf_config(const GgufContents& contents);

/// "rope_scaling" of config.json; null where positions are not scaled.
Json gguf_rope_scaling(const GgufContents& contents, const std::string& architecture, double theta,
                       int64_t head_dim);

/// Rows of the embedding.
int64_t gguf_vocab_size(const GgufContents& contents);

/// `kind`: "bos", "eos", "eot", "eom", "unknown", "padding".
std::optional<int64_t> gguf_token_id(const GgufContents& contents, const std::string& kind);

/// Without an end, as Hugging Face writes them: of a float, the shortest that reads back as it.
double gguf_shortest(double value);

/// tokenizer.json; nothing where the file has no tokenizer.
std::optional<std::string> gguf_tokenizer(const GgufContents& contents);
/// tokenizer_config.json, without the chat template; an empty object where there is no tokenizer.
Json gguf_tokenizer_config(const GgufContents& contents);

/// What `tokenizer.ggml.pre` stands for.
struct GgufPreTokenizer {
    Json stages;                 ///< "pre_tokenizer" of tokenizer.json
    bool nfc = false;            ///< the normalizer
    bool ignore_merges = false;  ///< a word that is a token is not split
    bool adds_bos = false;       ///< where the file does not say
};
GgufPreTokenizer gguf_pre_tokenizer(const std::string& name, const std::string& file);

/// A merge of two tokens: bytes [0, cut) and the rest of token `id`.
struct GgufMerge {
    uint32_t id, cut;
};
/// The merges of a SentencePiece vocabulary, the first to be done first: every way to make a token
/// of two others, tokens of high scores first. `merged`: whether a token takes part.
std::vector<GgufMerge> gguf_merges(const std::vector<std::string_view>& tokens,
                                   const std::vector<float>& scores,
                                   const std::vector<bool>& merged, const std::string& file);

}  // namespace conclave::sharding
