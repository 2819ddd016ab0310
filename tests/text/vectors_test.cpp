// Tokenizers of real families against what the reference implementation gives.
#include <algorithm>

#include "tests/text/fixtures.h"

namespace conclave::engine {
namespace {

Ids ids_of(const Json& vector, const char* key) { return vector.at(key).get<Ids>(); }

void check_vectors(const std::filesystem::path& directory) {
    SCOPED_TRACE(directory.string());
    const auto tokenizer = load_tokenizer(directory);
    const Json vectors = parse_fixture(directory / "vectors.json");
    ASSERT_GT(vectors.at("encode").size(), 50u);
    ASSERT_GT(vectors.at("decode").size(), 20u);
    for (const Json& v : vectors.at("encode")) {
        const auto text = v.at("text").get<std::string>();
        const Ids ids = ids_of(v, "ids");
        EXPECT_EQ(tokenizer->encode(text, true), ids) << v.at("text");
        EXPECT_EQ(tokenizer->encode(text, false), ids_of(v, "ids_plain")) << v.at("text");
    }
    for (const char* part : {"encode", "decode"}) {
        for (const Json& v : vectors.at(part)) {
            const Ids ids = ids_of(v, "ids");
            const auto some = v.at("decoded").get<std::string>();
            const auto all = v.at("decoded_all").get<std::string>();
            EXPECT_EQ(tokenizer->decode(ids, true), some);
            EXPECT_EQ(tokenizer->decode(ids, false), all);
            EXPECT_EQ(stream_all(*tokenizer, ids, true), some);
            EXPECT_EQ(stream_all(*tokenizer, ids, false), all);
        }
    }
}

TEST(Vectors, Qwen) { check_vectors(qwen_directory()); }

TEST(Vectors, Zoo) {
    if (!std::filesystem::exists(zoo_directory())) GTEST_SKIP() << "no zoo: " << zoo_directory();
    for (const auto& directory : tokenizer_directories()) check_vectors(directory);
}

TEST(Vectors, ShakespeareOfTheZooRoundTrips) {
    const auto directory = zoo_directory() / ".." / "shakespeare";
    if (!std::filesystem::exists(directory)) GTEST_SKIP() << "no zoo: " << directory;
    const auto tokenizer = load_tokenizer(directory);
    EXPECT_EQ(tokenizer->vocab_size(), 1020);
    const std::string text = "First Citizen:\nBefore we proceed any further, hear me speak.\n\n";
    const Ids ids = tokenizer->encode(text, true);
    EXPECT_LT(ids.size(), text.size() / 2);
    EXPECT_EQ(tokenizer->decode(ids, true), text);
}

}  // namespace
}  // namespace conclave::engine
