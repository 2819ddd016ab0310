// Tokenizers that GGUF files carry: the document made of the metadata against the tokenizer.json
// that the metadata were made of.
#include <algorithm>
#include <map>
#include <set>

#include "sharding/checkpoint/gguf/checkpoint.h"
#include "tests/support/gguf_file.h"
#include "tests/support/temp_dir.h"
#include "tests/text/fixtures.h"

namespace conclave::engine {
namespace {

using testing::GgufFile;

constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6;

std::string document_of(const std::string& bytes) {
    const testing::TempDir directory;
    const std::string path = directory / "model.gguf";
    std::ofstream(path, std::ios::binary) << bytes;
    return sharding::open_gguf(path)->document("tokenizer.json").value_or("");
}

std::shared_ptr<const Tokenizer> tokenizer_of(const std::string& path) {
    const auto text = sharding::open_gguf(path)->document("tokenizer.json");
    EXPECT_TRUE(text);
    return Tokenizer::parse(text.value_or("{}"), path);
}

/// What a converter would write for a tokenizer.json: byte-level, or with "<0x0A>" tokens as
/// SentencePiece's. Rows of the embedding are some more than tokens.
struct Converted {
    GgufFile file;
    std::vector<std::string> tokens;
    std::vector<int32_t> types;

    explicit Converted(const Json& json) {
        const Json& vocab = json.at("model").at("vocab");
        for (const auto& [token, id] : vocab.items()) put(id.get<size_t>(), token, kNormal);
        for (const Json& added : json.at("added_tokens"))
            put(added.at("id").get<size_t>(), added.at("content").get<std::string>(),
                added.at("special").get<bool>() ? kControl : kUserDefined);
        const bool pieces = json.at("model").value("byte_fallback", false);
        std::vector<std::string> merges;
        std::vector<float> scores(tokens.size());
        for (const Json& merge : json.at("model").at("merges")) {
            const auto a = merge.at(0).get<std::string>(), b = merge.at(1).get<std::string>();
            const float score = -1 - static_cast<float>(merges.size());
            merges.push_back(a + " " + b);
            if (pieces) scores[vocab.at(a + b).get<size_t>()] = score;
        }
        for (size_t i = 0; pieces && i < tokens.size(); ++i) {
            if (tokens[i].size() == 6 && tokens[i].rfind("<0x", 0) == 0) types[i] = kByte;
            if (tokens[i] == "<unk>") types[i] = kUnknown;
            if (scores[i] == 0 && types[i] == kNormal) scores[i] = -1e6f - static_cast<float>(i);
        }
        for (int i = 0; i < 3; ++i) {
            put(tokens.size(), "[PAD" + std::to_string(tokens.size()) + "]", kUnused);
            scores.push_back(-1000);
        }
        file.text("general.architecture", "llama");
        file.text("tokenizer.ggml.model", pieces ? "llama" : "gpt2");
        file.texts("tokenizer.ggml.tokens", tokens);
        file.numbers("tokenizer.ggml.token_type", GgufFile::kI32, types);
        if (pieces)
            file.numbers("tokenizer.ggml.scores", GgufFile::kF32, scores);
        else
            file.texts("tokenizer.ggml.merges", merges);
        embedding();
    }

    void put(size_t id, const std::string& token, int32_t type) {
        if (tokens.size() <= id) {
            tokens.resize(id + 1);
            types.resize(id + 1, kUnused);
        }
        tokens[id] = token;
        types[id] = type;
    }

    void embedding() {
        file.tensor("token_embd.weight", {1, tokens.size() + 5}, GgufFile::kTensorF32,
                    std::string(4 * (tokens.size() + 5), '\0'));
    }
};

void expect_vectors(const Tokenizer& tokenizer, const std::filesystem::path& directory) {
    const Json vectors = parse_fixture(directory / "vectors.json");
    ASSERT_GT(vectors.at("encode").size(), 50u);
    for (const Json& v : vectors.at("encode")) {
        const auto text = v.at("text").get<std::string>();
        const auto ids = v.at("ids").get<Ids>();
        EXPECT_EQ(tokenizer.encode(text, true), ids) << v.at("text");
        EXPECT_EQ(tokenizer.encode(text, false), v.at("ids_plain").get<Ids>()) << v.at("text");
        EXPECT_EQ(tokenizer.decode(ids, true), v.at("decoded").get<std::string>());
        EXPECT_EQ(tokenizer.decode(ids, false), v.at("decoded_all").get<std::string>());
    }
    for (const Json& v : vectors.at("decode"))
        EXPECT_EQ(tokenizer.decode(v.at("ids").get<Ids>(), false),
                  v.at("decoded_all").get<std::string>());
}

void check_family(const std::filesystem::path& directory, const std::string& pre) {
    SCOPED_TRACE(directory.string() + " as " + pre);
    Converted converted(parse_fixture(directory / "tokenizer.json"));
    if (!pre.empty()) converted.file.text("tokenizer.ggml.pre", pre);
    converted.file.u32("tokenizer.ggml.bos_token_id", pre.empty() ? 1 : 0);
    const std::string document = document_of(converted.file.bytes());
    const auto tokenizer = Tokenizer::parse(document, "model.gguf");
    expect_vectors(*tokenizer, directory);
    EXPECT_EQ(tokenizer->decode(Ids{static_cast<TokenId>(converted.tokens.size()) - 1}, false), "");
}

TEST(GgufTokenizer, ByteLevelOfTheFixture) { check_family(qwen_directory(), "qwen2"); }

TEST(GgufTokenizer, EveryFamilyOfTheZoo) {
    if (!std::filesystem::exists(zoo_directory())) GTEST_SKIP() << "no zoo: " << zoo_directory();
    const std::map<std::string, std::vector<std::string>> families = {
        {"gpt2", {"gpt-2", "default"}},
        {"llama3", {"llama-bpe", "llama3", "llama-v3"}},
        {"qwen", {"qwen2"}},
        {"olmoe", {"olmo", "dolma"}},
        {"gpt4o", {"gpt-4o"}},
        {"deepseek", {"deepseek-v3"}}};
    for (const auto& [name, all] : families)
        for (const std::string& pre : all) check_family(zoo_directory() / name, pre);
}

TEST(GgufTokenizer, EveryPreTokenizerIsServed) {
    for (const char* pre :
         {"default",      "gpt-2",          "phi-2",       "olmo",         "dolma",
          "smollm",       "starcoder",      "refact",      "llama-bpe",    "llama3",
          "llama-v3",     "smaug-bpe",      "dbrx",        "qwen2",        "deepseek-r1-qwen",
          "megrez",       "qwen35",         "gpt-4o",      "llama4",       "minimax-m2",
          "deepseek-llm", "deepseek-coder", "deepseek-v3", "hunyuan-dense"}) {
        Converted converted(parse_fixture(qwen_directory() / "tokenizer.json"));
        converted.file.text("tokenizer.ggml.pre", pre);
        const std::string document = document_of(converted.file.bytes());
        const auto tokenizer = Tokenizer::parse(document, pre);
        const std::string text = "It's 1234 o'clock,\n\n  \xE4\xB8\xAD\xE6\x96\x87 Ab_c!  \n x";
        const Ids ids = tokenizer->encode(text, false);
        EXPECT_EQ(tokenizer->decode(ids, false), text) << pre;
        // Words are cut where the family's expression cuts them: of digits, 1, 3 or all.
        std::set<size_t> digits;
        for (const TokenId id : ids) {
            const std::string part = tokenizer->decode(Ids{id}, false);
            if (!part.empty() && part.find_first_not_of("0123456789") == std::string::npos)
                digits.insert(part.size());
        }
        EXPECT_FALSE(digits.empty()) << pre;
    }
}

TEST(GgufTokenizer, PiecesOfScores) {
    if (!std::filesystem::exists(zoo_directory())) GTEST_SKIP() << "no zoo: " << zoo_directory();
    check_family(zoo_directory() / "llama2-legacy", "");
}

TEST(GgufTokenizer, FilesOfTheZoo) {
    const std::filesystem::path zoo = zoo_directory() / "..";
    if (!std::filesystem::exists(zoo / "gguf")) GTEST_SKIP() << "no zoo: " << zoo;
    const auto reference = load_tokenizer(zoo / "shakespeare");
    std::vector<std::string> texts = {"", " ", "\n", "<|im_start|>user\n<|im_end|>"};
    for (const Json& v : parse_fixture(qwen_directory() / "vectors.json").at("encode"))
        texts.push_back(v.at("text").get<std::string>());
    const std::string play = read_text(zoo / "text" / "shakespeare-valid.txt");
    for (size_t at = 0; at < play.size(); at += 997) texts.push_back(play.substr(at, 1200));
    size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(zoo / "gguf")) {
        const std::string name = entry.path().filename().string();
        if (entry.path().extension() != ".gguf") continue;
        SCOPED_TRACE(name);
        ++files;
        const auto tokenizer = tokenizer_of(entry.path().string());
        EXPECT_EQ(tokenizer->vocab_size(), reference->vocab_size());
        for (const std::string& text : texts) {
            const Ids ids = reference->encode(text, true);
            ASSERT_EQ(tokenizer->encode(text, true), ids) << text;
            ASSERT_EQ(tokenizer->decode(ids, true), reference->decode(ids, true));
            ASSERT_EQ(tokenizer->decode(ids, false), reference->decode(ids, false));
        }
    }
    EXPECT_GE(files, 28u);
}

TEST(GgufTokenizer, SpecialAndUserTokens) {
    Converted converted(parse_fixture(qwen_directory() / "tokenizer.json"));
    GgufFile file;
    const auto bos = static_cast<TokenId>(converted.tokens.size());
    converted.put(converted.tokens.size(), "<begin>", kControl);
    converted.put(converted.tokens.size(), "<mine \xC3\xA9>", kUserDefined);
    file.text("general.architecture", "qwen2")
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "qwen2")
        .texts("tokenizer.ggml.tokens", converted.tokens)
        .numbers("tokenizer.ggml.token_type", GgufFile::kI32, converted.types)
        .texts("tokenizer.ggml.merges", {})
        .u32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(bos))
        .u32("tokenizer.ggml.eos_token_id", 0)
        .boolean("tokenizer.ggml.add_bos_token", true)
        .boolean("tokenizer.ggml.add_eos_token", true);
    converted.file = file;
    converted.embedding();
    const auto tokenizer = Tokenizer::parse(document_of(converted.file.bytes()), "model.gguf");
    const std::string text = "a<mine \xC3\xA9>b<begin>";
    const Ids plain = tokenizer->encode(text, false);
    ASSERT_EQ(plain.size(), 4u);
    EXPECT_EQ(plain[1], bos + 1);
    EXPECT_EQ(plain[3], bos);
    Ids framed = plain;
    framed.insert(framed.begin(), bos);
    framed.push_back(0);
    EXPECT_EQ(tokenizer->encode(text, true), framed);
    EXPECT_EQ(tokenizer->decode(framed, true), "a<mine \xC3\xA9>b");
}

}  // namespace
}  // namespace conclave::engine
