#include "sharding/checkpoint/gguf/documents.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "runtime/base/text.h"

namespace conclave::sharding {
namespace {

constexpr const char* kTemplateKey = "tokenizer.chat_template";

std::optional<std::string> chat_template(const GgufContents& contents) {
    if (!contents.metadata.has(kTemplateKey)) return std::nullopt;
    return contents.metadata.get_string(kTemplateKey);
}

Json generation_config(const GgufContents& contents) {
    Json document = Json::object();
    std::vector<int64_t> ends;
    for (const char* kind : {"eos", "eot", "eom"}) {
        const auto id = gguf_token_id(contents, kind);
        if (id && std::find(ends.begin(), ends.end(), *id) == ends.end()) ends.push_back(*id);
    }
    if (ends.size() == 1) document["eos_token_id"] = ends[0];
    if (ends.size() > 1) document["eos_token_id"] = ends;
    if (const auto id = gguf_token_id(contents, "bos")) document["bos_token_id"] = *id;
    if (const auto id = gguf_token_id(contents, "padding")) document["pad_token_id"] = *id;
    return document;
}

Json tokenizer_config(const GgufContents& contents) {
    Json document = gguf_tokenizer_config(contents);
    if (auto text = chat_template(contents)) document["chat_template"] = std::move(*text);
    return document;
}

/// Nothing where `document` is empty. Throws kBadContent for text that is not UTF-8.
std::optional<std::string> written(const Json& document, std::string_view name,
                                   const std::string& file) {
    if (document.empty()) return std::nullopt;
    try {
        return document.dump(2) + "\n";
    } catch (const Json::type_error&) {
        throw Error(ErrorCode::kBadContent,
                    "metadata for " + std::string(name) + " is not valid UTF-8")
            .file(file);
    }
}

}  // namespace

double gguf_shortest(double value) {
    const auto single = static_cast<float>(value);
    if (static_cast<double>(single) != value || !std::isfinite(single)) return value;
    char text[64];
    const auto end = std::to_chars(text, text + sizeof text - 1, single).ptr;
    *end = '\0';
    double shortest = value;
    std::from_chars(text, end, shortest);
    return shortest;
}

int64_t gguf_vocab_size(const GgufContents& contents) {
    const GgufTensor* embedding = contents.find("token_embd.weight");
    const bool fits = embedding && embedding->dims.size() == 2 && embedding->dims[1] >= 1 &&
                      embedding->dims[1] <= int64_t{1} << 24;
    if (!fits)
        throw Error(ErrorCode::kBadContent, "no embedding that a vocabulary's size can be told by")
            .file(contents.path)
            .tensor("token_embd.weight")
            .expected("a matrix with a row for each token");
    return embedding->dims[1];
}

std::optional<int64_t> gguf_token_id(const GgufContents& contents, const std::string& kind) {
    const GgufMetadata& m = contents.metadata;
    const std::string key = "tokenizer.ggml." + kind + "_token_id";
    if (!m.has(key)) {
        // What a SentencePiece model has where it is not told otherwise.
        if (m.get_string_or("tokenizer.ggml.model", "none") != "llama") return std::nullopt;
        if (kind == "unknown") return 0;
        if (kind == "bos") return 1;
        if (kind == "eos") return 2;
        return std::nullopt;
    }
    const int64_t id = m.get_int(key, -1, UINT32_MAX);
    if (id == -1 || id == UINT32_MAX) return std::nullopt;  // written for "none"
    return m.get_int(key, 0, gguf_vocab_size(contents) - 1);
}

std::optional<std::string> gguf_document(const GgufContents& contents, std::string_view name) {
    if (name == "config.json") return written(gguf_config(contents), name, contents.path);
    if (name == "generation_config.json")
        return written(generation_config(contents), name, contents.path);
    if (name == "tokenizer.json") return gguf_tokenizer(contents);
    if (name == "tokenizer_config.json")
        return written(tokenizer_config(contents), name, contents.path);
    if (name == "chat_template.jinja") return chat_template(contents);
    return std::nullopt;
}

}  // namespace conclave::sharding
