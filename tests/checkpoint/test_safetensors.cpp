#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/error.h"
#include "sharding/checkpoint/reader.h"
#include "tests/checkpoint/expect.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace conclave {
namespace {

using sharding::Checkpoint;
using sharding::StoredTensor;
using sharding::StoredType;
using testing::expect_refused;
using testing::raw_safetensors;
using testing::TempDir;
using testing::TensorToWrite;
using testing::write_file;
using testing::write_safetensors;

std::string noise(std::mt19937& random, size_t bytes) {
    std::string text(bytes, '\0');
    for (char& c : text) c = static_cast<char>(random());
    return text;
}

std::string read_tensor(const Checkpoint& checkpoint, const StoredTensor& t) {
    std::string out(t.bytes, '\x5a');
    checkpoint.read(t.file, t.offset, std::as_writable_bytes(std::span(out)));
    return out;
}

TEST(Safetensors, EveryTypeAndSize) {
    const TempDir dir;
    std::mt19937 random(3);
    struct Row {
        const char* name;
        int bits;
    };
    const std::vector<Row> types = {
        {"BOOL", 8}, {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
        {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
        {"U16", 16}, {"F16", 16},    {"BF16", 16},   {"I32", 32},    {"U32", 32},
        {"F32", 32}, {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
    };
    std::vector<TensorToWrite> written;
    for (size_t i = 0; i < types.size(); ++i) {
        // 4 * odd elements: whole bytes even for 6-bit types.
        const int64_t rows = 4, columns = static_cast<int64_t>(random() % 50) * 2 + 1;
        const auto bytes = static_cast<size_t>(rows * columns * types[i].bits / 8);
        // Names descend, so that the order in the file is not the order by name.
        written.push_back(
            {"t" + std::to_string(90 - i), types[i].name, {rows, columns}, noise(random, bytes)});
    }
    write_safetensors(dir / "all.safetensors", written);
    const auto checkpoint = Checkpoint::open(dir / "all.safetensors");
    ASSERT_EQ(checkpoint->tensors().size(), types.size());
    ASSERT_EQ(checkpoint->files().size(), 1u);
    EXPECT_EQ(checkpoint->files()[0].path, dir / "all.safetensors");
    EXPECT_EQ(checkpoint->files()[0].bytes, std::filesystem::file_size(dir / "all.safetensors"));
    for (size_t i = 0; i < types.size(); ++i) {
        const StoredTensor* t = checkpoint->find(written[i].name);
        ASSERT_NE(t, nullptr);
        EXPECT_EQ(t->type, StoredType(i));
        EXPECT_STREQ(stored_type_name(t->type), types[i].name);
        EXPECT_EQ(stored_type_bits(t->type), types[i].bits);
        EXPECT_EQ(t->shape, written[i].shape);
        EXPECT_EQ(t->bytes, written[i].data.size());
        EXPECT_EQ(read_tensor(*checkpoint, *t), written[i].data);
        EXPECT_EQ(t->describe(),
                  std::string(types[i].name) + " [4, " + std::to_string(written[i].shape[1]) + "]");
    }
    for (size_t i = 1; i < types.size(); ++i)
        EXPECT_LT(checkpoint->tensors()[i - 1].name, checkpoint->tensors()[i].name);
    EXPECT_EQ(checkpoint->find("t9"), nullptr);
    EXPECT_EQ(checkpoint->find("u"), nullptr);
    EXPECT_EQ(checkpoint->find(""), nullptr);
}

TEST(Safetensors, WhatIsLegalThoughOdd) {
    const TempDir dir;
    const std::vector<std::pair<std::string, std::string>> files = {
        {"{}", ""},
        {"{}      ", ""},
        {"{}" + std::string(20'000'000, ' '), ""},  // padding longer than any token may be
        {R"({"__metadata__":{}})", ""},
        {R"({"__metadata__":{"format":"pt","a":"1"}})", ""},
        {R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", "abcd"},
        {R"({"e":{"dtype":"F32","shape":[3,0,2],"data_offsets":[0,0]}})", ""},
        // Empty tensors before, between and after others.
        {R"({"z":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},)"
         R"("a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
         R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},)"
         R"("y":{"dtype":"U8","shape":[0],"data_offsets":[3,3]},)"
         R"("x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
         "abc"},
        // Fields in another order, blanks, escapes.
        {"{\n \"\\u0061\\n\" : { \"data_offsets\" : [ 0 , 1 ] , \"shape\":[1],\"dtype\":\"U8\" } "
         "}\n",
         "a"},
        {R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "a"},
    };
    for (const auto& [header, data] : files) {
        SCOPED_TRACE(header.substr(0, 100));
        write_file(dir / "f.safetensors", raw_safetensors(header, data));
        EXPECT_NO_THROW(Checkpoint::open(dir / "f.safetensors"));
    }
    write_file(dir / "f.safetensors", raw_safetensors(files[5].first, files[5].second));
    EXPECT_EQ(Checkpoint::open(dir / "f.safetensors")->tensors()[0].describe(), "F32 []");
    write_file(dir / "f.safetensors", raw_safetensors(files[8].first, files[8].second));
    EXPECT_NE(Checkpoint::open(dir / "f.safetensors")->find("a\n"), nullptr);
}

TEST(Safetensors, HeadersOnlyAndExactCounts) {
    const TempDir dir;
    std::mt19937 random(5);
    write_safetensors(dir / "model.safetensors", {{"a", "U8", {100'000}, noise(random, 100'000)},
                                                  {"b", "U8", {7}, "1234567"}});
    const auto checkpoint = Checkpoint::open(dir.path());
    const uint64_t header = checkpoint->find("a")->offset;
    EXPECT_EQ(checkpoint->counters().bytes, header);
    EXPECT_EQ(checkpoint->counters().calls, 2u);
    EXPECT_EQ(read_tensor(*checkpoint, *checkpoint->find("b")), "1234567");
    EXPECT_EQ(checkpoint->counters().bytes, header + 7);
    EXPECT_EQ(checkpoint->counters().calls, 3u);

    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (int k = 0; k < 100; ++k) read_tensor(*checkpoint, *checkpoint->find("b"));
        });
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(checkpoint->counters().bytes, header + 401 * 7);
    EXPECT_EQ(checkpoint->counters().calls, 403u);
}

TEST(Safetensors, FileThatShrinksAfterwards) {
    const TempDir dir;
    write_safetensors(dir / "model.safetensors", {{"a", "U8", {1000}, std::string(1000, 'x')}});
    const auto checkpoint = Checkpoint::open(dir.path());
    const StoredTensor a = *checkpoint->find("a");
    std::filesystem::resize_file(dir / "model.safetensors", a.offset + 999);
    try {
        read_tensor(*checkpoint, a);
        FAIL() << "nothing thrown";
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kBadContent);
        EXPECT_NE(std::string(e.what()).find(dir / "model.safetensors"), std::string::npos);
    }
    std::vector<std::byte> byte(1);
    EXPECT_THROW(checkpoint->read(1, 0, byte), Error);
    EXPECT_THROW(checkpoint->read(-1, 0, byte), Error);
}

TEST(Safetensors, FingerprintSeesEveryDifference) {
    const TempDir dir;
    const auto of = [&](const std::vector<TensorToWrite>& tensors) {
        write_safetensors(dir / "f.safetensors", tensors);
        return Checkpoint::open(dir / "f.safetensors")->fingerprint();
    };
    const uint64_t base = of({{"a", "U8", {2, 3}, "abcdef"}, {"b", "U8", {1}, "x"}});
    EXPECT_EQ(base, of({{"a", "U8", {2, 3}, "123456"}, {"b", "U8", {1}, "y"}}));
    EXPECT_NE(base, of({{"a", "U8", {3, 2}, "abcdef"}, {"b", "U8", {1}, "x"}}));
    EXPECT_NE(base, of({{"a", "I8", {2, 3}, "abcdef"}, {"b", "U8", {1}, "x"}}));
    EXPECT_NE(base, of({{"c", "U8", {2, 3}, "abcdef"}, {"b", "U8", {1}, "x"}}));
    EXPECT_NE(base, of({{"b", "U8", {1}, "x"}, {"a", "U8", {2, 3}, "abcdef"}}));
    EXPECT_NE(base, of({{"a", "U8", {2, 3}, "abcdef"}}));
    const auto with = [&](const char* text) {
        write_file(dir / "f.safetensors",
                   testing::safetensors_bytes({{"a", "U8", {1}, "x"}}, {{"a", text}}));
        return Checkpoint::open(dir / "f.safetensors")->fingerprint();
    };
    EXPECT_EQ(with("1"), with("1"));
    EXPECT_NE(with("1"), with("2"));
}

TEST(Safetensors, MetadataOfAllFiles) {
    const TempDir dir;
    const auto write = [&](const char* name, const char* tensor,
                           const std::vector<std::pair<std::string, std::string>>& metadata) {
        write_file(dir / name, testing::safetensors_bytes({{tensor, "U8", {1}, "x"}}, metadata));
    };
    write("1.safetensors", "a", {{"format", "pt"}, {"a", "1"}, {"both", "x"}, {"", "none"}});
    write("2.safetensors", "b", {{"b", ""}, {"both", "y"}, {"format", "pt"}});
    write_file(dir / "model.safetensors.index.json",
               R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
    const auto checkpoint = Checkpoint::open(dir.path());
    EXPECT_EQ(checkpoint->metadata("format"), "pt");
    EXPECT_EQ(checkpoint->metadata("a"), "1");
    EXPECT_EQ(checkpoint->metadata("b"), "");
    EXPECT_EQ(checkpoint->metadata(""), "none");
    EXPECT_EQ(checkpoint->metadata("c"), std::nullopt);
    EXPECT_EQ(Checkpoint::none()->metadata("a"), std::nullopt);
    try {
        checkpoint->metadata("both");
        FAIL() << "nothing thrown";
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kBadContent);
        EXPECT_NE(std::string(e.what()).find("2.safetensors"), std::string::npos) << e.what();
    }
}

TEST(Safetensors, HeaderHashFollowsTheHeader) {
    const TempDir dir;
    const auto of = [&](const std::string& format, const std::string& data) {
        write_file(dir / "f.safetensors",
                   testing::safetensors_bytes({{"a", "U8", {1}, data}}, {{"format", format}}));
        return Checkpoint::open(dir / "f.safetensors")->files()[0].header_hash;
    };
    EXPECT_EQ(of("pt", "x"), of("pt", "y"));
    EXPECT_NE(of("pt", "x"), of("np", "x"));
}

TEST(Checkpoint, WhatCannotBeOpened) {
    const TempDir dir;
    expect_refused(dir / "nowhere", ErrorCode::kMissingFile, {dir / "nowhere"});
    expect_refused(dir.path(), ErrorCode::kMissingFile,
                   {dir.path(), "model.safetensors.index.json or model.safetensors"});
    write_file(dir / "model.gguf", "GGUF");
    expect_refused(dir / "model.gguf", ErrorCode::kUnsupported, {dir / "model.gguf"});
    std::filesystem::create_directory(dir / "model.safetensors");
    expect_refused(dir.path(), ErrorCode::kMissingFile, {dir / "model.safetensors", "regular"});
}

}  // namespace
}  // namespace conclave
