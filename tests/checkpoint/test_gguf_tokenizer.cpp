// tokenizer.json, made of a GGUF file's metadata.
#include <gtest/gtest.h>

#include <limits>

#include "tests/checkpoint/gguf_documents.h"

namespace conclave::sharding {
namespace {

using testing::add_f32;
using testing::expect_refused;
using testing::GgufFile;
using testing::json_document;
using testing::model;

/// SentencePiece's: three special tokens and some pieces.
GgufFile pieces(const std::vector<std::string>& texts, const std::vector<float>& scores,
                std::vector<int32_t> types = {}) {
    GgufFile file;
    file.text("general.architecture", "llama").text("tokenizer.ggml.model", "llama");
    std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
    tokens.insert(tokens.end(), texts.begin(), texts.end());
    std::vector<float> all(3);
    all.insert(all.end(), scores.begin(), scores.end());
    if (types.empty()) {
        types = {2, 3, 3};
        types.resize(tokens.size(), 1);
    }
    file.texts("tokenizer.ggml.tokens", tokens)
        .numbers("tokenizer.ggml.scores", GgufFile::kF32, all)
        .numbers("tokenizer.ggml.token_type", GgufFile::kI32, types);
    add_f32(file, "token_embd.weight", {1, tokens.size() + 2});
    return file;
}

TEST(GgufTokenizer, MergesOfScores) {
    // The best score first; of one token's the longest left part; \u00E9 is one character.
    const GgufFile file = pieces({"a", "b", "\xC3\xA9", "ab", "b\xC3\xA9", "ab\xC3\xA9", "<s"},
                                 {-9, -9, -9, -2, -1, -3, -4});
    const Json json = json_document(file, "tokenizer.json");
    const Json& model = json.at("model");
    EXPECT_EQ(model.at("merges"), Json::parse(R"([["b","é"],["a","b"],["ab","é"],["a","bé"]])"));
    EXPECT_EQ(model.at("vocab").size(), 10u);
    EXPECT_EQ(model.at("vocab").at("ab\xC3\xA9"), 8);
    EXPECT_EQ(model.at("unk_token"), "<unk>");
    EXPECT_EQ(model.at("byte_fallback"), true);
    EXPECT_EQ(model.at("fuse_unk"), true);
    EXPECT_EQ(json.at("pre_tokenizer"), nullptr);
    EXPECT_EQ(json.at("normalizer").at("normalizers").size(), 2u);
    EXPECT_EQ(json.at("decoder").at("decoders").size(), 4u);
    EXPECT_EQ(json.at("post_processor").at("special_tokens").at("<s>").at("ids"), Json({1}));
    EXPECT_EQ(json.at("added_tokens").size(), 3u);
    GgufFile bare = file;
    bare.boolean("tokenizer.ggml.add_space_prefix", false)
        .boolean("tokenizer.ggml.add_bos_token", false);
    const Json without = json_document(bare, "tokenizer.json");
    EXPECT_EQ(without.at("normalizer").at("normalizers").size(), 1u);
    EXPECT_EQ(without.at("decoder").at("decoders").size(), 3u);
    EXPECT_EQ(without.at("post_processor"), nullptr);
}

TEST(GgufTokenizer, FillersAreNoTokens) {
    const Json json = json_document(
        pieces({"a", "[PAD4]", "", "[PAD9]", ""}, {0, 0, 0, 0, 0}, {2, 3, 3, 1, 5, 1, 5, 5}),
        "tokenizer.json");
    const Json& vocab = json.at("model").at("vocab");
    EXPECT_EQ(vocab.size(), 5u);
    EXPECT_EQ(vocab.at("[PAD9]"), 6);
}

TEST(GgufTokenizer, EscapesWhatJsonMust) {
    std::string odd = "\"\\";
    for (char c = 0; c < 0x20; ++c) odd += c;
    odd += "\x7F\xC2\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF";
    const Json json = json_document(pieces({odd}, {0}), "tokenizer.json");
    EXPECT_EQ(json.at("model").at("vocab").at(odd), 3);
}

TEST(GgufTokenizer, RefusesWhatIsWrong) {
    const auto refused = [](const GgufFile& file, ErrorCode code,
                            const std::vector<std::string>& parts) {
        expect_refused(file, "tokenizer.json", code, parts);
    };
    for (const char* bad : {"\x80", "a\xC3", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                            "\xE0\x9F\x80", "\xFF", "\xF0\x8F\xBF\xBF", "\xE2\x82"})
        refused(pieces({"a", bad}, {0, 0}), ErrorCode::kBadContent,
                {"tokenizer.ggml.tokens[4]", "UTF-8"});
    refused(pieces({"a", "b", "a"}, {0, 0, 0}), ErrorCode::kBadContent,
            {"tokenizer.ggml.tokens", "twice", "\"a\" at 3 and 5"});
    refused(pieces({"a"}, {0, 0}), ErrorCode::kBadContent,
            {"tokenizer.ggml.scores", "expected 4", "found 5"});
    refused(pieces({"a"}, {0}, {2, 3, 3}), ErrorCode::kBadContent,
            {"tokenizer.ggml.token_type", "expected 4", "found 3"});
    refused(pieces({"a"}, {0}, {2, 3, 3, 7}), ErrorCode::kBadContent,
            {"tokenizer.ggml.token_type"});
    refused(pieces({"a"}, {std::numeric_limits<float>::quiet_NaN()}), ErrorCode::kBadContent,
            {"tokenizer.ggml.scores[3]"});
    refused(pieces({std::string(20000, 'a')}, {0}), ErrorCode::kUnsupported, {"too long"});
    GgufFile bos = pieces({"a"}, {0});
    bos.u32("tokenizer.ggml.bos_token_id", 4);  // has a row, but no text
    refused(bos, ErrorCode::kBadContent, {"bos", "below 4", "found 4"});
    GgufFile out = pieces({"a"}, {0});
    out.u32("tokenizer.ggml.bos_token_id", 6);
    refused(out, ErrorCode::kBadContent, {"tokenizer.ggml.bos_token_id", "6"});
    GgufFile no_tokens = model("llama");
    no_tokens.text("tokenizer.ggml.model", "gpt2");
    refused(no_tokens, ErrorCode::kBadContent, {"tokenizer.ggml.tokens"});
    no_tokens.texts("tokenizer.ggml.tokens", {"a"});
    refused(no_tokens, ErrorCode::kBadContent, {"tokenizer.ggml.merges"});
    GgufFile pre = no_tokens;
    pre.text("tokenizer.ggml.pre", "chameleon");
    refused(pre, ErrorCode::kUnsupported, {"tokenizer.ggml.pre", "chameleon", "qwen2"});
    GgufFile kind = model("llama");
    kind.text("tokenizer.ggml.model", "bert");
    refused(kind, ErrorCode::kUnsupported, {"tokenizer.ggml.model", "bert", "gpt2"});
    GgufFile chat = pieces({"a"}, {0});
    chat.text("tokenizer.chat_template", "\xFF");
    expect_refused(chat, "tokenizer_config.json", ErrorCode::kBadContent, {"UTF-8"});
}

TEST(GgufTokenizer, ManyMergesAreRefusedInTime) {
    // Every string of up to 17 of two letters: each can be split anywhere.
    std::vector<std::string> tokens = {""};
    for (size_t begin = 0, length = 1; length <= 17; ++length) {
        const size_t end = tokens.size();
        for (; begin < end; ++begin)
            for (char c = 'a'; c < 'c'; ++c) tokens.push_back(tokens[begin] + c);
    }
    tokens.erase(tokens.begin());
    const std::vector<float> scores(tokens.size(), -1);
    expect_refused(pieces(tokens, scores), "tokenizer.json", ErrorCode::kUnsupported,
                   {"too many merges"});
}

}  // namespace
}  // namespace conclave::sharding
