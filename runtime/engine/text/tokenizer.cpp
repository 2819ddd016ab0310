#include "runtime/engine/text/tokenizer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/base/json.h"
#include "runtime/base/text.h"
#include "runtime/engine/text/added_tokens.h"
#include "runtime/engine/text/bpe.h"
#include "runtime/engine/text/decoder.h"
#include "runtime/engine/text/normalizer.h"
#include "runtime/engine/text/post_processor.h"
#include "runtime/engine/text/pre_tokenizer.h"
#include "runtime/engine/text/unicode.h"

namespace conclave::engine {
namespace {

std::vector<AddedToken> with_normalized(std::vector<AddedToken> tokens, bool normalized) {
    tokens.erase(std::remove_if(tokens.begin(), tokens.end(),
                                [&](const AddedToken& t) { return t.normalized != normalized; }),
                 tokens.end());
    return tokens;
}

class JsonTokenizer final : public Tokenizer {
  public:
    JsonTokenizer(const Json& json, const std::string& file)
        : bpe_(get_object(json, "model", file), file),
          normalizer_(parse_normalizer(find_json(json, "normalizer", file), file)),
          pre_tokenizer_(parse_pre_tokenizer(find_json(json, "pre_tokenizer", file), file)),
          post_processor_(find_json(json, "post_processor", file), file),
          decoder_(parse_decoder(find_json(json, "decoder", file), file)) {
        std::vector<AddedToken> added = parse_added_tokens(json, bpe_, file);
        for (AddedToken& token : added) {
            if (token.normalized) token.content = normalized(std::move(token.content));
        }
        fill_texts(added);
        raw_splitter_.emplace(with_normalized(added, false));
        normalized_splitter_.emplace(with_normalized(added, true));
        if (post_processor_.largest_id() >= vocab_size()) {
            throw Error(ErrorCode::kBadContent, "post_processor names an id of no token")
                .file(file)
                .expected("below " + std::to_string(vocab_size()))
                .found(std::to_string(post_processor_.largest_id()));
        }
    }

    int64_t vocab_size() const override { return static_cast<int64_t>(texts_.size()); }

    std::vector<TokenId> encode(std::string_view text, bool add_special_tokens) const override {
        if (text.size() > kMaxTextBytes) {
            throw Error(ErrorCode::kUsage, "text is too long to be encoded at once")
                .expected("at most " + std::to_string(kMaxTextBytes) + " bytes")
                .found(std::to_string(text.size()));
        }
        const std::string valid = valid_utf8(text);
        std::vector<TokenId> ids;
        Bpe::Scratch scratch;
        for (const auto& piece : raw_splitter_->split(valid)) {
            if (piece.id != kNoToken) {
                ids.push_back(piece.id);
            } else {
                encode_piece(valid.substr(piece.begin, piece.end - piece.begin), piece.begin == 0,
                             scratch, ids);
            }
        }
        return add_special_tokens ? post_processor_.run(std::move(ids)) : ids;
    }

    std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const override {
        Decoding decoding(*decoder_);
        std::string out;
        for (const TokenId id : ids) {
            if (gives_text(id, skip_special_tokens)) out += decoding.add(text_of(id));
        }
        return out + decoding.finish();
    }

    std::unique_ptr<Stream> stream(bool skip_special_tokens) const override;

  private:
    class DecodeStream;

    std::string normalized(std::string text) const {
        return normalizer_ ? normalizer_->run(std::move(text)) : text;
    }

    void fill_texts(const std::vector<AddedToken>& added) {
        texts_ = bpe_.tokens();
        known_.resize(texts_.size());
        for (size_t i = 0; i < texts_.size(); ++i) {
            known_[i] = bpe_.find(texts_[i]) == static_cast<TokenId>(i);
        }
        for (const AddedToken& token : added) {
            const auto id = static_cast<size_t>(token.id);
            if (id >= texts_.size()) {
                texts_.resize(id + 1);
                known_.resize(id + 1);
            }
            special_.resize(texts_.size());
            texts_[id] = token.content;
            known_[id] = true;
            if (token.special) special_[id] = true;
        }
        special_.resize(texts_.size());
    }

    bool gives_text(TokenId id, bool skip_special) const {
        const auto at = static_cast<size_t>(id);
        return id >= 0 && at < texts_.size() && known_[at] && !(skip_special && special_[at]);
    }
    const std::string& text_of(TokenId id) const { return texts_[static_cast<size_t>(id)]; }

    /// Of text without raw added tokens; `first`: it begins where the whole text did.
    void encode_piece(std::string raw, bool first, Bpe::Scratch& scratch,
                      std::vector<TokenId>& ids) const {
        if (first && normalizer_ && normalizer_->strips_left()) {
            size_t at = 0;
            if (char_class(next_char(raw, at)) & kSpace) first = false;
        }
        const std::string text = normalized(std::move(raw));
        for (const auto& piece : normalized_splitter_->split(text)) {
            if (piece.id != kNoToken) {
                ids.push_back(piece.id);
                continue;
            }
            Words words{text.substr(piece.begin, piece.end - piece.begin), {}};
            words.words.push_back({0, words.text.size(), first && piece.begin == 0});
            if (pre_tokenizer_) pre_tokenizer_->run(words);
            for (const Words::Word& word : words.words) {
                bpe_.encode(words.view(word), scratch, ids);
            }
        }
    }

    Bpe bpe_;
    std::unique_ptr<const Normalizer> normalizer_;
    std::unique_ptr<const PreTokenizer> pre_tokenizer_;
    PostProcessor post_processor_;
    std::unique_ptr<const Decoder> decoder_;
    std::optional<AddedTokenSplitter> raw_splitter_, normalized_splitter_;
    std::vector<std::string> texts_;  ///< by id, what decoding starts from
    std::vector<bool> known_, special_;
};

class JsonTokenizer::DecodeStream final : public Stream {
  public:
    DecodeStream(const JsonTokenizer& tokenizer, bool skip_special)
        : tokenizer_(tokenizer), decoding_(*tokenizer.decoder_), skip_special_(skip_special) {}
    std::string add(TokenId id) override {
        if (!tokenizer_.gives_text(id, skip_special_)) return {};
        return decoding_.add(tokenizer_.text_of(id));
    }
    std::string finish() override { return decoding_.finish(); }

  private:
    const JsonTokenizer& tokenizer_;
    Decoding decoding_;
    bool skip_special_;
};

std::unique_ptr<Tokenizer::Stream> JsonTokenizer::stream(bool skip_special_tokens) const {
    return std::make_unique<DecodeStream>(*this, skip_special_tokens);
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::parse(std::string_view json, const std::string& file) {
    JsonLimits limits;
    limits.file = file;
    return std::make_shared<const JsonTokenizer>(parse_json(json, limits), file);
}

}  // namespace conclave::engine
