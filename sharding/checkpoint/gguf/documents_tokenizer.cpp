#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/base/text.h"
#include "sharding/checkpoint/gguf/documents.h"

namespace conclave::sharding {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 22;
constexpr size_t kMaxMerges = size_t{1} << 22;
constexpr size_t kMaxDocumentBytes = size_t{64} << 20;  // what a tokenizer.json may have
constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kMark = "\u2581";  // SentencePiece's space

enum TokenType { kUndefined, kNormal, kUnknown, kControl, kUserDefined, kUnused, kByte };

std::string tokenizer_model(const GgufContents& contents) {
    return contents.metadata.get_string_or("tokenizer.ggml.model", "none");
}

/// Bytes of the character that `text` begins with; 0 where that is not valid UTF-8.
size_t char_bytes(std::string_view text) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    const size_t bytes = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || text.size() < bytes) return 0;
    for (size_t i = 1; i < bytes; ++i)
        if ((byte(i) & 0xC0) != 0x80) return 0;
    // Longer than need be, halves of pairs, beyond U+10FFFF.
    const unsigned second = byte(1);
    const bool wrong = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
                       (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
    return wrong ? 0 : bytes;
}

/// Text of a document, written piece by piece.
class JsonText {
  public:
    explicit JsonText(const std::string& file) : file_(file) {}

    void raw(std::string_view text) {
        if (out_.size() + text.size() > kMaxDocumentBytes)
            throw Error(ErrorCode::kUnsupported, "vocabulary is too large")
                .file(file_)
                .expected("at most " + std::to_string(kMaxDocumentBytes) +
                          " bytes as a tokenizer.json");
        out_ += text;
    }
    void value(const Json& json) { raw(json.dump()); }
    /// Element `index` of the array `key`, or a part of it. Not by Json, which takes a microsecond
    /// for each of half a million.
    void quoted(std::string_view text, const char* key, size_t index) {
        std::string quoted = "\"";
        for (size_t at = 0, bytes = 0; at < text.size(); at += bytes) {
            bytes = char_bytes(text.substr(at));
            if (bytes == 0)
                throw Error(ErrorCode::kBadContent,
                            std::string(key) + "[" + std::to_string(index) + "] is not valid UTF-8")
                    .file(file_)
                    .found(in_quotes(text));
            const auto c = static_cast<unsigned char>(text[at]);
            if (c < 0x20) {
                constexpr char kHex[] = "0123456789abcdef";
                quoted += {'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]};
                continue;
            }
            if (c == '"' || c == '\\') quoted += '\\';
            quoted += text.substr(at, bytes);
        }
        raw(quoted += '"');
    }
    std::string take() { return std::move(out_); }

  private:
    const std::string& file_;
    std::string out_;
};

class TokenizerWriter {
  public:
    explicit TokenizerWriter(const GgufContents& contents)
        : contents_(contents),
          m_(contents.metadata),
          pieces_(tokenizer_model(contents) == "llama"),
          tokens_(m_.get_strings(kTokens, kMaxTokens)),
          text_(contents.path) {
        if (pieces_) {
            pre_.adds_bos = true;
        } else {
            pre_ = gguf_pre_tokenizer(m_.get_string_or("tokenizer.ggml.pre", "default"),
                                      contents.path);
        }
        read_types();
        refuse_twins();
    }

    std::string write() {
        text_.raw(R"({"version":"1.0","truncation":null,"padding":null,"model":{"type":"BPE",)");
        text_.raw(R"("dropout":null,"continuing_subword_prefix":null,"end_of_word_suffix":null)");
        write_model();
        text_.raw("}");
        member("normalizer", normalizer());
        member("pre_tokenizer", pre_.stages);
        member("decoder", decoder());
        member("post_processor", post_processor());
        write_added_tokens();
        text_.raw("}\n");
        return text_.take();
    }

    Json config() const {
        Json document = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"add_bos_token", adds("bos", pre_.adds_bos)},
                         {"add_eos_token", adds("eos", false)}};
        for (const auto& [ours, theirs] : {std::pair<const char*, const char*>{"bos_token", "bos"},
                                           {"eos_token", "eos"},
                                           {"pad_token", "padding"}})
            if (const auto id = special(theirs)) document[ours] = tokens_[*id];
        if (pieces_ && special("unknown")) document["unk_token"] = tokens_[*special("unknown")];
        return document;
    }

  private:
    void member(const char* name, const Json& json) {
        text_.raw(std::string(",\"") + name + "\":");
        text_.value(json);
    }

    template <class T>
    void check_length(const std::vector<T>& values, const char* key) const {
        if (values.size() != tokens_.size())
            throw Error(ErrorCode::kBadContent,
                        "metadata key '" + std::string(key) + "' has the wrong length")
                .file(contents_.path)
                .expected(std::to_string(tokens_.size()) + ", as " + kTokens)
                .found(std::to_string(values.size()));
    }

    void read_types() {
        constexpr const char* kKey = "tokenizer.ggml.token_type";
        types_.assign(tokens_.size(), kNormal);
        if (!m_.has(kKey)) return;
        const auto stored = m_.get_ints(kKey, 0, kByte, kMaxTokens);
        check_length(stored, kKey);
        for (size_t i = 0; i < stored.size(); ++i) types_[i] = static_cast<TokenType>(stored[i]);
    }

    /// What converters fill a vocabulary with up to the rows of the embedding.
    bool is_filler(size_t id) const {
        return tokens_[id].empty() ||
               (types_[id] == kUnused && tokens_[id] == "[PAD" + std::to_string(id) + "]");
    }

    void refuse_twins() const {
        std::vector<size_t> order;
        for (size_t i = 0; i < tokens_.size(); ++i)
            if (!is_filler(i)) order.push_back(i);
        std::sort(order.begin(), order.end(),
                  [&](size_t a, size_t b) { return tokens_[a] < tokens_[b]; });
        for (size_t i = 1; i < order.size(); ++i)
            if (tokens_[order[i - 1]] == tokens_[order[i]])
                throw Error(ErrorCode::kBadContent, std::string(kTokens) + " has a token twice")
                    .file(contents_.path)
                    .found(in_quotes(tokens_[order[i]]) + " at " + std::to_string(order[i - 1]) +
                           " and " + std::to_string(order[i]));
    }

    /// Index of a token of that kind, if the model has one.
    std::optional<size_t> special(const char* kind) const {
        const auto id = gguf_token_id(contents_, kind);
        if (!id) return std::nullopt;
        if (static_cast<size_t>(*id) >= tokens_.size())
            throw Error(ErrorCode::kBadContent,
                        std::string("the ") + kind + " token is none of " + kTokens)
                .file(contents_.path)
                .expected("below " + std::to_string(tokens_.size()))
                .found(std::to_string(*id));
        return static_cast<size_t>(*id);
    }

    bool adds(const std::string& kind, bool fallback) const {
        return m_.get_bool_or("tokenizer.ggml.add_" + kind + "_token", fallback);
    }
    bool adds_space_prefix() const {
        return m_.get_bool_or("tokenizer.ggml.add_space_prefix", true);
    }

    void write_model() {
        text_.raw(pieces_ ? R"(,"fuse_unk":true,"byte_fallback":true)"
                          : R"(,"fuse_unk":false,"byte_fallback":false)");
        text_.raw(pre_.ignore_merges ? R"(,"ignore_merges":true)" : R"(,"ignore_merges":false)");
        text_.raw(",\"vocab\":{");
        bool first = true;
        for (size_t i = 0; i < tokens_.size(); ++i) {
            if (is_filler(i)) continue;
            if (!std::exchange(first, false)) text_.raw(",");
            text_.quoted(tokens_[i], kTokens, i);
            text_.raw(":" + std::to_string(i));
        }
        text_.raw("},\"merges\":[");
        pieces_ ? write_scored_merges() : write_merges();
        text_.raw("],\"unk_token\":");
        if (const auto id = special("unknown"); pieces_ && id)
            text_.quoted(tokens_[*id], kTokens, *id);
        else
            text_.raw("null");
    }

    void write_merges() {
        constexpr const char* kMerges = "tokenizer.ggml.merges";
        const auto merges = m_.get_strings(kMerges, kMaxMerges);
        for (size_t i = 0; i < merges.size(); ++i) {
            if (i > 0) text_.raw(",");
            text_.quoted(merges[i], kMerges, i);
        }
    }

    void write_scored_merges() {
        constexpr const char* kScores = "tokenizer.ggml.scores";
        const auto scores = m_.get_floats(kScores, kMaxTokens);
        check_length(scores, kScores);
        std::vector<bool> merged(tokens_.size());
        for (size_t i = 0; i < tokens_.size(); ++i) {
            if (std::isnan(scores[i]))
                throw Error(ErrorCode::kBadContent,
                            std::string(kScores) + "[" + std::to_string(i) + "] is no number")
                    .file(contents_.path);
            // Others are never made of text: bytes stand alone, the rest is found before.
            merged[i] = types_[i] == kNormal || (types_[i] == kUnused && !is_filler(i));
        }
        bool first = true;
        for (const GgufMerge& m : gguf_merges(tokens_, scores, merged, contents_.path)) {
            text_.raw(std::exchange(first, false) ? "[" : ",[");
            text_.quoted(tokens_[m.id].substr(0, m.cut), kTokens, m.id);
            text_.raw(",");
            text_.quoted(tokens_[m.id].substr(m.cut), kTokens, m.id);
            text_.raw("]");
        }
    }

    Json normalizer() const {
        if (!pieces_) return pre_.nfc ? Json{{"type", "NFC"}} : Json();
        Json steps = Json::array();
        if (adds_space_prefix()) steps.push_back({{"type", "Prepend"}, {"prepend", kMark}});
        steps.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kMark}});
        return {{"type", "Sequence"}, {"normalizers", steps}};
    }

    Json decoder() const {
        if (!pieces_)
            return {{"type", "ByteLevel"},
                    {"add_prefix_space", true},
                    {"trim_offsets", true},
                    {"use_regex", true}};
        Json steps = Json::array();
        steps.push_back({{"type", "Replace"}, {"pattern", {{"String", kMark}}}, {"content", " "}});
        steps.push_back({{"type", "ByteFallback"}});
        steps.push_back({{"type", "Fuse"}});
        if (adds_space_prefix())
            steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
        return {{"type", "Sequence"}, {"decoders", steps}};
    }

    /// Of text "A" or "B": the tokens that are put around it.
    Json framed(const char* text, int type_id, std::optional<size_t> bos,
                std::optional<size_t> eos) const {
        Json parts = Json::array();
        const auto add = [&](std::optional<size_t> id) {
            if (id)
                parts.push_back({{"SpecialToken", {{"id", tokens_[*id]}, {"type_id", type_id}}}});
        };
        add(bos);
        parts.push_back({{"Sequence", {{"id", text}, {"type_id", type_id}}}});
        add(eos);
        return parts;
    }

    Json post_processor() const {
        const Json bytes = {{"type", "ByteLevel"},
                            {"add_prefix_space", true},
                            {"trim_offsets", false},
                            {"use_regex", true}};
        const auto bos = adds("bos", pre_.adds_bos) ? special("bos") : std::nullopt;
        const auto eos = adds("eos", false) ? special("eos") : std::nullopt;
        if (!bos && !eos) return pieces_ ? Json() : bytes;
        Json pair = framed("A", 0, bos, eos);
        for (const Json& part : framed("B", 1, bos, eos)) pair.push_back(part);
        Json specials = Json::object();
        for (const auto& id : {bos, eos})
            if (id)
                specials[std::string(tokens_[*id])] = {
                    {"id", tokens_[*id]}, {"ids", {*id}}, {"tokens", {tokens_[*id]}}};
        Json frame = {{"type", "TemplateProcessing"},
                      {"single", framed("A", 0, bos, eos)},
                      {"pair", pair},
                      {"special_tokens", specials}};
        if (pieces_) return frame;
        return {{"type", "Sequence"}, {"processors", {bytes, frame}}};
    }

    void write_added_tokens() {
        text_.raw(",\"added_tokens\":[");
        bool first = true;
        for (size_t i = 0; i < tokens_.size(); ++i) {
            const bool special = types_[i] == kControl || types_[i] == kUnknown;
            if ((!special && types_[i] != kUserDefined) || is_filler(i)) continue;
            if (!std::exchange(first, false)) text_.raw(",");
            text_.value({{"id", i},
                         {"content", tokens_[i]},
                         {"single_word", false},
                         {"lstrip", false},
                         {"rstrip", false},
                         {"normalized", false},
                         {"special", special}});
        }
        text_.raw("]");
    }

    const GgufContents& contents_;
    const GgufMetadata& m_;
    const bool pieces_;  ///< SentencePiece with scores, not byte-level BPE with merges
    const std::vector<std::string_view> tokens_;
    std::vector<TokenType> types_;
    GgufPreTokenizer pre_;
    JsonText text_;
};

/// Whether there is a tokenizer. Throws kUnsupported for one of a kind that is not served.
bool has_tokenizer(const GgufContents& contents) {
    const std::string model = tokenizer_model(contents);
    if (model == "none" || model == "no_vocab") return false;
    if (model != "gpt2" && model != "llama")
        throw Error(ErrorCode::kUnsupported, "tokenizer.ggml.model is not served")
            .file(contents.path)
            .expected("gpt2 or llama")
            .found(printable(model, 64));
    return true;
}

}  // namespace

std::optional<std::string> gguf_tokenizer(const GgufContents& contents) {
    constexpr const char* kWhole = "tokenizer.huggingface.json";
    if (contents.metadata.has(kWhole)) return contents.metadata.get_string(kWhole);
    if (!has_tokenizer(contents)) return std::nullopt;
    return TokenizerWriter(contents).write();
}

Json gguf_tokenizer_config(const GgufContents& contents) {
    if (!has_tokenizer(contents)) return Json::object();
    return TokenizerWriter(contents).config();
}

}  // namespace conclave::sharding
