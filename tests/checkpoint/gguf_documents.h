// Files of metadata, and the documents made of them.
#pragma once
#include <gtest/gtest.h>

#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/json.h"
#include "sharding/checkpoint/gguf/checkpoint.h"
#include "tests/checkpoint/expect.h"
#include "tests/support/gguf_file.h"
#include "tests/support/temp_dir.h"

namespace conclave::testing {

inline std::optional<std::string> document(const GgufFile& file, const std::string& name) {
    const testing::TempDir directory;
    const std::string path = directory / "model.gguf";
    std::ofstream(path, std::ios::binary) << file.bytes();
    return sharding::open_gguf(path)->document(name);
}

inline Json json_of(const std::optional<std::string>& text) {
    EXPECT_TRUE(text);
    JsonLimits limits;
    limits.file = "document";
    return parse_json(text.value_or("null"), limits);
}
inline Json json_document(const GgufFile& file, const std::string& name) {
    return json_of(document(file, name));
}

inline void expect_refused(const GgufFile& file, const std::string& name, ErrorCode code,
                           std::vector<std::string> parts) {
    parts.push_back("model.gguf");
    expect_error([&] { document(file, name); }, code, parts);
}

inline void add_f32(GgufFile& file, const std::string& name, const std::vector<uint64_t>& dims) {
    uint64_t bytes = 4;
    for (const uint64_t extent : dims) bytes *= extent;
    file.tensor(name, dims, GgufFile::kTensorF32, std::string(bytes, '\0'));
}

/// A model of two layers, 24 wide, 3 heads of 8 or 4; `spare`: a key to leave out.
inline GgufFile model(const std::string& architecture, const std::string& spare = "") {
    GgufFile file;
    file.text("general.architecture", architecture);
    const auto add = [&](const std::string& key, uint32_t value) {
        if (key != spare) file.u32(architecture + "." + key, value);
    };
    add("block_count", 2);
    add("context_length", 500);
    add("embedding_length", 24);
    add("feed_forward_length", 40);
    add("attention.head_count", 3);
    add("attention.head_count_kv", 1);
    if (spare != "attention.layer_norm_rms_epsilon")
        file.f32(architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
    if (spare != "token_embd.weight") add_f32(file, "token_embd.weight", {24, 11});
    return file;
}

}  // namespace conclave::testing
