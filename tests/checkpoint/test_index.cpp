#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "sharding/checkpoint/reader.h"
#include "tests/checkpoint/expect.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace conclave {
namespace {

using sharding::Checkpoint;
using testing::expect_refused;
using testing::TempDir;
using testing::write_file;
using testing::write_safetensors;

class Index : public ::testing::Test {
  protected:
    void SetUp() override {
        write_safetensors(dir_ / "two.safetensors",
                          {{"a", "U8", {2}, "aa"}, {"c", "U8", {1}, "c"}});
        write_safetensors(dir_ / "one.safetensors", {{"b", "U8", {3}, "bbb"}});
    }
    void write_index(const std::string& text) { write_file(index_path_, text); }
    void write_map(const std::string& members) {
        write_index("{\"weight_map\":{" + members + "}}");
    }

    const TempDir dir_;
    const std::string index_path_ = dir_ / "model.safetensors.index.json";
    const std::string good_ =
        R"("a":"two.safetensors","b":"one.safetensors","c":"two.safetensors")";
};

TEST_F(Index, OpensAllFiles) {
    // A model.safetensors beside an index is not looked at.
    write_file(dir_ / "model.safetensors", "rubbish");
    write_index(R"({"metadata":{"total_size":6,"x":[{"weight_map":{"z":1}}]},"weight_map":{)" +
                good_ + R"(},"weight_map_version":null})");
    const auto checkpoint = Checkpoint::open(dir_.path());
    ASSERT_EQ(checkpoint->files().size(), 2u);
    EXPECT_EQ(checkpoint->files()[0].path, dir_ / "one.safetensors");
    EXPECT_EQ(checkpoint->files()[1].path, dir_ / "two.safetensors");
    ASSERT_EQ(checkpoint->tensors().size(), 3u);
    for (const auto& [name, data] :
         std::vector<std::pair<std::string, std::string>>{{"a", "aa"}, {"b", "bbb"}, {"c", "c"}}) {
        const auto* t = checkpoint->find(name);
        ASSERT_NE(t, nullptr);
        std::string out(t->bytes, '?');
        checkpoint->read(t->file, t->offset, std::as_writable_bytes(std::span(out)));
        EXPECT_EQ(out, data);
    }
}

TEST_F(Index, MissingFile) {
    write_map(good_ + R"(,"d":"three.safetensors")");
    expect_refused(dir_.path(), ErrorCode::kMissingFile, {index_path_, dir_ / "three.safetensors"});
}

TEST_F(Index, DisagreesWithTheFiles) {
    write_map(good_ + R"(,"d":"one.safetensors")");
    expect_refused(dir_.path(), ErrorCode::kBadContent,
                   {index_path_, dir_ / "one.safetensors", "tensor d", "no file"});
    write_map(good_ + R"(,"0":"one.safetensors")");
    expect_refused(dir_.path(), ErrorCode::kBadContent, {index_path_, "tensor 0", "no file"});
    write_map(R"("a":"two.safetensors","b":"two.safetensors","c":"one.safetensors")");
    expect_refused(dir_.path(), ErrorCode::kBadContent,
                   {index_path_, dir_ / "one.safetensors", dir_ / "two.safetensors", "tensor b"});
    write_map(R"("a":"two.safetensors","b":"one.safetensors")");
    expect_refused(dir_.path(), ErrorCode::kBadContent,
                   {index_path_, dir_ / "two.safetensors", "tensor c"});
    write_map(R"("b":"one.safetensors","c":"two.safetensors")");
    expect_refused(dir_.path(), ErrorCode::kBadContent,
                   {index_path_, dir_ / "two.safetensors", "tensor a"});
}

TEST_F(Index, TensorInTwoFiles) {
    write_safetensors(dir_ / "one.safetensors", {{"a", "U8", {1}, "a"}, {"b", "U8", {3}, "bbb"}});
    write_map(good_);
    expect_refused(dir_.path(), ErrorCode::kBadContent,
                   {dir_ / "one.safetensors", dir_ / "two.safetensors", "tensor a"});
}

TEST_F(Index, BadShardIsNamed) {
    write_file(dir_ / "one.safetensors", "short");
    write_map(good_);
    expect_refused(dir_.path(), ErrorCode::kBadContent, {dir_ / "one.safetensors"});
}

TEST_F(Index, Malformed) {
    const std::vector<std::string> texts = {
        "",
        "[]",
        "7",
        "null",
        "\"weight_map\"",
        "{}",
        "{\"weight_map\":{}}",
        "{\"weight_map\":null}",
        "{\"weight_map\":[]}",
        "{\"weight_map\":\"one.safetensors\"}",
        "{\"weight_map\":3}",
        "{\"metadata\":{\"weight_map\":{\"b\":\"one.safetensors\"}}}",
        "{\"weight_map\":{\"b\":1}}",
        "{\"weight_map\":{\"b\":null}}",
        "{\"weight_map\":{\"b\":true}}",
        "{\"weight_map\":{\"b\":-1}}",
        "{\"weight_map\":{\"b\":1.5}}",
        "{\"weight_map\":{\"b\":[\"one.safetensors\"]}}",
        "{\"weight_map\":{\"b\":{\"file\":\"one.safetensors\"}}}",
        "{\"weight_map\":{\"b\":\"one.safetensors\",\"b\":\"one.safetensors\"}}",
        "{\"weight_map\":{\"b\":\"one.safetensors\"},\"weight_map\":{\"b\":\"one.safetensors\"}}",
        "{\"weight_map\":{" + good_ + "}",
        "{\"weight_map\":{" + good_ + "}} x",
        "{\"x\":" + std::string(1'000'000, '[') + "}",
    };
    for (const std::string& text : texts) {
        SCOPED_TRACE(text.substr(0, 100));
        write_index(text);
        expect_refused(dir_.path(), ErrorCode::kBadContent, {index_path_});
    }
}

TEST_F(Index, CannotLeadOutOfTheDirectory) {
    const std::vector<std::string> names = {
        "",
        ".",
        "..",
        "../one.safetensors",
        "/etc/passwd",
        "./one.safetensors",
        "sub/one.safetensors",
        "one.safetensors\\u0000",
        "\\u002e\\u002e\\u002fone.safetensors",
    };
    for (const std::string& name : names) {
        SCOPED_TRACE(name);
        write_map("\"b\":\"" + name + "\"");
        expect_refused(dir_.path(), ErrorCode::kBadContent,
                       {index_path_, "tensor b", "a plain file name"});
    }
}

}  // namespace
}  // namespace conclave
