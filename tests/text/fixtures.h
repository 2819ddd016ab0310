// Tokenizers the tests of this folder work on.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/json.h"
#include "runtime/engine/text/tokenizer.h"

namespace conclave::engine {

using Ids = std::vector<TokenId>;

inline std::string read_text(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    EXPECT_TRUE(in) << path;
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
}

inline std::filesystem::path qwen_directory() {
    return CONCLAVE_SOURCE_DIR "/tests/fixtures/tokenizers/qwen";
}
inline std::filesystem::path zoo_directory() {
    return CONCLAVE_SOURCE_DIR "/../shared/zoo/tokenizers";
}

inline Json parse_fixture(const std::filesystem::path& path) {
    JsonLimits limits;
    limits.file = path.string();
    return parse_json(read_text(path), limits);
}

inline std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& directory) {
    const auto path = directory / "tokenizer.json";
    return Tokenizer::parse(read_text(path), path.string());
}

inline std::shared_ptr<const Tokenizer> parse_tokenizer(const Json& json) {
    return Tokenizer::parse(json.dump(), "test.json");
}

/// ids of a to z are 0 to 25; the merges are made of them.
inline Json letters_model() {
    Json vocab = Json::object();
    for (int i = 0; i < 26; ++i) vocab[std::string(1, static_cast<char>('a' + i))] = i;
    return Json{{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}};
}

inline Json letters_tokenizer() { return Json{{"model", letters_model()}}; }

/// All streamed, one id at a time. Fails the test where a piece is not valid UTF-8.
std::string stream_all(const Tokenizer& tokenizer, const Ids& ids, bool skip_special_tokens);

/// The qwen fixture and, where it is there, all of the zoo.
std::vector<std::filesystem::path> tokenizer_directories();

}  // namespace conclave::engine
