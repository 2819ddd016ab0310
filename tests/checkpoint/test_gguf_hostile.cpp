// GGUF files that break one rule each. All must be refused with a message that names the file, what
// was expected and what was found, whatever sizes they claim.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "sharding/checkpoint/gguf/checkpoint.h"
#include "tests/checkpoint/expect.h"
#include "tests/support/gguf_file.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace conclave {
namespace {

using testing::expect_error;
using testing::gguf_text;
using testing::GgufFile;
using testing::le;

constexpr uint64_t kOne = 1;
const std::string kEight(8, 'd');

/// Key-value pairs that let a file be opened, and no tensors.
GgufFile base(uint64_t alignment = 32) {
    GgufFile file;
    file.alignment = alignment;
    file.text("general.architecture", "llama");
    return file;
}

/// A good file but for the type and extents of one tensor.
std::string with_tensor(const std::vector<uint64_t>& dims, uint32_t type,
                        const std::string& data = kEight) {
    return base().tensor("t", dims, type, data).bytes();
}

struct Case {
    const char* label;
    std::string bytes;
    std::vector<std::string> says;
    ErrorCode code = ErrorCode::kBadContent;
};

class GgufHostile : public ::testing::Test {
  protected:
    void check(const std::vector<Case>& cases) {
        for (const Case& c : cases) {
            SCOPED_TRACE(c.label);
            testing::write_file(path_, c.bytes);
            std::vector<std::string> says = c.says;
            says.insert(says.end(), {path_, "expected ", "found "});
            expect_error([&] { sharding::open_gguf(path_); }, c.code, says);
        }
    }
    const testing::TempDir dir_;
    const std::string path_ = dir_ / "model.gguf";
};

TEST_F(GgufHostile, MagicAndVersion) {
    GgufFile wrong = base();
    wrong.magic = "FUGG";
    std::vector<Case> cases = {
        {"empty", "", {"at least 8 bytes", "found 0 bytes"}},
        {"seven bytes", std::string("GGUF\3\0\0", 7), {"at least 8 bytes", "found 7"}},
        {"magic", wrong.bytes(), {"not a GGUF file", "found \"FUGG\""}},
    };
    const auto versioned = [](uint32_t version) {
        GgufFile file = base();
        file.version = version;
        return file.bytes();
    };
    cases.push_back({"version 0", versioned(0), {"2 or 3", "found 0"}});
    for (const uint32_t version : {1u, 4u, 0xffffffffu})
        cases.push_back({"version",
                         versioned(version),
                         {"version 2 or 3", "found " + std::to_string(version)},
                         ErrorCode::kUnsupported});
    for (const uint32_t version : {2u << 24, 3u << 24})
        cases.push_back(
            {"big-endian", versioned(version), {"big-endian"}, ErrorCode::kUnsupported});
    check(cases);

    testing::write_file(path_, "version https://git-lfs.github.com/spec/v1\n");
    expect_error([&] { sharding::open_gguf(path_); }, ErrorCode::kBadContent, {path_, "git-lfs"});
    for (const uint32_t version : {2u, 3u}) {
        testing::write_file(path_, versioned(version));
        EXPECT_NO_THROW(sharding::open_gguf(path_));
    }
}

TEST_F(GgufHostile, Counts) {
    std::vector<Case> cases;
    const auto claims = [&](uint64_t tensors, uint64_t pairs, const char* what) {
        GgufFile file = base();
        if (tensors) file.claimed_tensors = tensors;
        if (pairs) file.claimed_pairs = pairs;
        const std::string count = std::to_string(std::max(tensors, pairs));
        cases.push_back({"count", file.header(), {what, what[0] == 'G' ? "found " + count : ""}});
    };
    claims(1, 0, "file ends inside");
    claims(0, 2, "file ends inside");
    for (const uint64_t count : {uint64_t{1000}, kOne << 32, kOne << 60, kOne << 63,
                                 uint64_t{0x0aaaaaaaaaaaaaab}, UINT64_MAX}) {
        claims(count, 0, "GGUF file claims too many tensors");
        claims(0, count, "GGUF file claims too many key-value pairs");
    }
    GgufFile many = base();
    for (int i = 0; i < 70'000; ++i) many.u32(std::to_string(i), 0);
    cases.push_back({"more pairs than any model has", many.bytes(), {"at most 65536", "70001"}});
    check(cases);
}

TEST_F(GgufHostile, Lengths) {
    std::vector<Case> cases;
    for (const uint64_t length :
         {uint64_t{1000}, kOne << 31, kOne << 60, kOne << 63, UINT64_MAX - 7, UINT64_MAX}) {
        const std::string size = std::to_string(length);
        const auto raw = [&](uint32_t type, const std::string& value) {
            return base().pair("k", type, value).header();
        };
        cases.push_back({"string",
                         raw(GgufFile::kText, le(length) + "abc"),
                         {"file ends inside", "\"k\"", size + " bytes more", "found 3 bytes"}});
        cases.push_back(
            {"string in an array",
             raw(GgufFile::kArray, le(GgufFile::kText + 0u) + le(kOne) + le(length) + "abc"),
             {"file ends inside", "\"k\"", size + " bytes more", "found 3 bytes"}});
        cases.push_back({"array of numbers",
                         raw(GgufFile::kArray, le(GgufFile::kF64 + 0u) + le(length) + kEight),
                         {"longer than its file", "\"k\"", "at most 1 elements", "found " + size}});
        cases.push_back({"array of strings",
                         raw(GgufFile::kArray, le(GgufFile::kText + 0u) + le(length) + kEight),
                         {"longer than its file", "\"k\"", "at most 1 elements", "found " + size}});
        GgufFile key = base();
        key.claimed_pairs = 2;
        cases.push_back({"key", key.header() + le(length) + "name", {"found "}});
        GgufFile name = base();
        name.claimed_tensors = 1;
        cases.push_back({"name",
                         name.header() + le(length) + std::string(40, 'n'),
                         {"at most 63 bytes", "found " + size}});
    }
    GgufFile long_key = base();
    long_key.u32(std::string(65'536, 'k'), 0);
    cases.push_back({"key of 64 KiB", long_key.bytes(), {"at most 65535", "found 65536"}});
    cases.push_back({"name of 64 bytes",
                     base().tensor(std::string(64, 'n'), {2}, 0, kEight).bytes(),
                     {"at most 63", "found 64"}});
    check(cases);
    testing::write_file(path_, base().tensor(std::string(63, 'n'), {2}, 0, kEight).bytes());
    EXPECT_NO_THROW(sharding::open_gguf(path_));
}

TEST_F(GgufHostile, ValueTypes) {
    std::vector<Case> cases;
    for (const uint32_t type : {13u, 255u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
        const std::string number = std::to_string(type);
        cases.push_back({"of a value",
                         base().pair("k", type, kEight).bytes(),
                         {"\"k\"", "0 to 12", "found " + number}});
        cases.push_back({"of elements",
                         base().array("k", type, 1, kEight).bytes(),
                         {"\"k\"", "0 to 12", "found " + number}});
    }
    const std::string inner = le(GgufFile::kU8 + 0u) + le(kOne) + "x";
    cases.push_back({"nested arrays",
                     base().array("k", GgufFile::kArray, 1, inner).bytes(),
                     {"\"k\"", "array", "found type 9"}});
    std::string deep;
    for (int i = 0; i < 100'000; ++i) deep += le(GgufFile::kArray + 0u) + le(kOne);
    cases.push_back({"deep arrays",
                     base().pair("k", GgufFile::kArray, deep).bytes(),
                     {"\"k\"", "found type 9"}});
    cases.push_back({"key twice", base().u32("k", 1).u32("k", 1).bytes(), {"\"k\"", "it again"}});
    check(cases);
}

TEST_F(GgufHostile, Alignment) {
    std::vector<Case> cases;
    const std::string key = "\"general.alignment\"";
    for (const uint32_t a : {0u, (1u << 20) + 1, 1u << 21, 1u << 30, 1u << 31, 0xffffffffu})
        cases.push_back({"range",
                         base().u32("general.alignment", a).bytes(),
                         {key, "an integer from 1 to 1048576", "found " + std::to_string(a)}});
    for (const uint32_t a : {3u, 24u, 48u, (1u << 20) - 1})
        cases.push_back({"no power of 2",
                         base().u32("general.alignment", a).bytes(),
                         {key, "a power of 2", "found " + std::to_string(a)}});
    cases.push_back({"negative", base().i32("general.alignment", -32).bytes(), {key, "found -32"}});
    cases.push_back({"float", base().f32("general.alignment", 32).bytes(), {key, "found f32 32"}});
    cases.push_back({"string", base().text("general.alignment", "32").bytes(), {key, "found str"}});
    check(cases);
    for (const uint32_t a : {1u, 2u, 64u, 4096u, 1u << 20}) {
        GgufFile file = base(a);
        file.u32("general.alignment", a);
        file.tensor("a", {3}, 0, std::string(12, 'a')).tensor("b", {2}, 0, kEight);
        testing::write_file(path_, file.bytes());
        const auto checkpoint = sharding::open_gguf(path_);
        std::string back(8, '\0');
        checkpoint->read(0, checkpoint->find("b")->offset, std::as_writable_bytes(std::span(back)));
        EXPECT_EQ(back, kEight) << a;
    }
}

TEST_F(GgufHostile, Extents) {
    constexpr uint64_t k42 = (kOne << 42) + 1;
    check({
        {"five dimensions", with_tensor({1, 1, 1, 1, 2}, 0), {"tensor t", "at most 4", "found 5"}},
        {"2^32 - 1 dimensions",
         [] {
             GgufFile file = base();
             file.claimed_tensors = 1;
             return file.header() + gguf_text("t") + le(0xffffffffu) + std::string(64, '\0');
         }(),
         {"tensor t", "at most 4", "found 4294967295"}},
        {"negative",
         with_tensor({uint64_t(-2)}, 0),
         {"tensor t", "2^63 - 1", "found 1844674407370"}},
        {"product wraps",
         with_tensor({k42, kOne << 22}, 0),
         {"tensor t", "overflows", "F32 [4398"}},
        {"product wraps to little",
         with_tensor({4194305, 4194305, 211106198978564}, 0),
         {"tensor t", "overflows", "below 2^63"}},
        {"bytes wrap", with_tensor({kOne << 62}, 0), {"tensor t", "overflows", "below 2^63"}},
        {"bytes wrap before a zero", with_tensor({0, kOne << 62, kOne << 62}, 0), {"overflows"}},
        {"nearly 2^63 bits",
         with_tensor({kOne << 58}, 0),
         {"beyond the end", "1152921504606846976"}},
        {"blocks wrap", with_tensor({kOne << 62, 8}, 2), {"tensor t", "overflows"}},
        {"half a block",
         with_tensor({16, 2}, 2, std::string(18, 'x')),
         {"tensor t", "multiple of 32", "found Q4_0 [16, 2]"}},
        {"a block and a bit", with_tensor({257}, 12), {"multiple of 256", "found Q4_K [257]"}},
        {"scalar of blocks", with_tensor({}, 8), {"multiple of 32", "found Q8_0 []"}},
    });
}

TEST_F(GgufHostile, TensorTypes) {
    std::vector<Case> cases;
    const auto add = [&](uint32_t type, const std::string& found, ErrorCode code) {
        cases.push_back(
            {"type", with_tensor({256}, type, std::string(256, 'x')), {"tensor t", found}, code});
    };
    for (const auto& [type, name] : std::vector<std::pair<uint32_t, std::string>>{
             {4, "type 4, Q4_2"},
             {5, "type 5, Q4_3"},
             {9, "type 9, Q8_1"},
             {15, "type 15, Q8_K"},
             {31, "Q4_0_4_4"},
             {32, "Q4_0_4_8"},
             {33, "Q4_0_8_8"},
             {36, "I2_S of ik_llama.cpp"},
             {37, "type 37"},
             {38, "type 38"},
             {97, "ik_llama.cpp"},
             {133, "Q6_0 of ik_llama.cpp"},
             {139, "IQ4_K of ik_llama.cpp"},
             {158, "type 158, IQ1_KT"},
             {202, "interleaved"},
             {339, "type 339, interleaved rows of ik_llama.cpp"}})
        add(type, name, ErrorCode::kUnsupported);
    for (const uint32_t type : {43u, 96u, 100u, 159u, 401u, 0x7fffffffu, 0x80000000u, 0xffffffffu})
        add(type, "found type " + std::to_string(type), ErrorCode::kBadContent);
    check(cases);
}

TEST_F(GgufHostile, Offsets) {
    const auto second_at = [](uint64_t offset) {
        return base()
            .tensor("a", {3}, 0, std::string(12, 'a'))
            .tensor_at("b", {2}, 0, offset, kEight)
            .bytes();
    };
    const std::string good = second_at(32);
    check({
        {"unaligned", second_at(12), {"tensor b", "not aligned", "offset 32", "found 12"}},
        {"hole", second_at(64), {"tensor b", "hole", "offset 32", "found 64"}},
        {"overlap", second_at(0), {"tensor b", "overlap", "offset 32", "found 0"}},
        {"wraps",
         second_at(UINT64_MAX - 31),
         {"tensor b", "offset 32", "found 18446744073709551584"}},
        {"first not at 0",
         base().tensor_at("a", {2}, 0, 32, kEight).bytes(),
         {"tensor a", "offset 0", "found 32"}},
        {"data gone", good.substr(0, good.size() - 25), {"tensor b", "at most 7 bytes", "found 8"}},
        {"data of the second gone", good.substr(0, good.size() - 32), {"tensor b", "at most 0"}},
        {"padding before it gone, too",
         good.substr(0, good.size() - 40),
         {"tensor b", "at most 0"}},
        {"empty, behind its file",
         base()
             .tensor("t", {0}, 0, "")
             .bytes()
             .substr(0, base().tensor("t", {0}, 0, "").header().size()),
         {"tensor t", "at most 0 bytes", "found 0"}},
        {"too large for its file", with_tensor({1000}, 0), {"tensor t", "found 4000 bytes"}},
        {"name twice",
         base().tensor("t", {2}, 0, kEight).tensor("t", {2}, 0, kEight).bytes(),
         {"tensor t", "duplicate tensor name"}},
    });
    testing::write_file(path_, good.substr(0, good.size() - 24));  // the last one's padding gone
    EXPECT_NO_THROW(sharding::open_gguf(path_));
}

TEST_F(GgufHostile, Models) {
    GgufFile nameless;
    const auto experts = [](const std::vector<uint64_t>& dims, uint32_t count,
                            const std::string& name = "blk.0.ffn_up_exps.weight") {
        size_t bytes = 4;
        for (const uint64_t extent : dims) bytes *= extent;
        return base()
            .u32("llama.expert_count", count)
            .tensor(name, dims, 0, std::string(bytes, 'x'))
            .bytes();
    };
    const std::string fused = "blk.0.ffn_gate_up_exps.weight";
    check({
        {"no architecture", nameless.bytes(), {"\"general.architecture\"", "no such key"}},
        {"architecture",
         GgufFile().text("general.architecture", "x\n").bytes(),
         {"llama", "qwen3moe", "found \"x\\x0a\""},
         ErrorCode::kUnsupported},
        {"experts", base().u32("llama.expert_count", 4097).bytes(), {"4096", "found 4097"}},
        {"experts, negative", base().i32("llama.expert_count", -1).bytes(), {"found -1"}},
        {"experts, array", base().numbers<int>("llama.expert_count", 5, {4}).bytes(), {"array"}},
        {"no experts",
         base().tensor("blk.0.ffn_up_exps.weight", {1, 1, 2}, 0, kEight).bytes(),
         {"\"llama.expert_count\"", "no such key"}},
        {"other experts", experts({2, 3, 4}, 5), {"ffn_up_exps", "the last 5", "F32 [2, 3, 4]"}},
        {"too many extents", experts({2, 3, 1, 5}, 5), {"3 extents", "F32 [2, 3, 1, 5]"}},
        {"empty experts", experts({0, 3, 5}, 5), {"not empty", "F32 [0, 3, 5]"}},
        {"odd rows of two", experts({2, 3, 5}, 5, fused), {"multiple of 2", "F32 [2, 3, 5]"}},
        {"scale of another", experts({4}, 5, "blk.0.ffn_up_exps.scale"), {"the last 5", "F32 [4]"}},
        {"scale, no scalar", experts({4}, 5, "blk.0.attn_q.scale"), {"a scalar", "F32 [4]"}},
        {"merged and one by one",
         base()
             .u32("llama.expert_count", 1)
             .tensor("blk.0.ffn_up_exps.weight", {2}, 0, kEight)
             .tensor("blk.0.ffn_up.0.weight", {2}, 0, kEight)
             .bytes(),
         {"stand for one", "model.layers.0.block_sparse_moe.experts.0.w3.weight"}},
        {"own name taken",
         base()
             .tensor("output.weight", {2}, 0, kEight)
             .tensor("lm_head.weight", {2}, 0, kEight)
             .bytes(),
         {"stand for one", "tensor lm_head.weight"}},
    });
    GgufFile amplified = base(1);
    amplified.u32("general.alignment", 1).u32("llama.expert_count", 4096);
    for (int i = 0; i < 300; ++i)
        amplified.tensor("blk." + std::to_string(i) + ".ffn_up_exps.weight", {1, 1, 4096}, 24,
                         std::string(4096, 'x'));
    check({{"experts of little files", amplified.bytes(), {"at most 1048576"}}});
}

/// Whatever is cut off, something that the rest needs is missing.
TEST_F(GgufHostile, TruncatedEverywhere) {
    const std::string bytes = base()
                                  .texts("t", {"a", "bc"})
                                  .numbers<float>("f", GgufFile::kF32, {1, 2})
                                  .u64("u", 7)
                                  .tensor("x", {3, 2}, 0, std::string(24, 'x'))
                                  .tensor("output.weight", {32, 1}, 8, std::string(34, 'y'))
                                  .bytes();
    for (size_t size = 0; size < bytes.size() - 30; ++size) {  // 30: the padding of the last
        SCOPED_TRACE(size);
        testing::write_file(path_, bytes.substr(0, size));
        expect_error([&] { sharding::open_gguf(path_); }, ErrorCode::kBadContent,
                     {path_, "found "});
    }
    testing::write_file(path_, bytes);
    EXPECT_NO_THROW(sharding::open_gguf(path_));
}

TEST_F(GgufHostile, RandomDamage) {
    const std::string bytes =
        base()
            .texts("t", {"a", "bc"})
            .u32("general.alignment", 32)
            .u32("llama.expert_count", 2)
            .tensor("x", {3, 2}, 0, std::string(24, 'x'))
            .tensor("blk.0.ffn_up_exps.weight", {32, 1, 2}, 8, std::string(68, 'y'))
            .bytes();
    std::mt19937 random(7);
    for (int i = 0; i < 5'000; ++i) {
        std::string damaged = bytes;
        for (int n = 0; n <= i % 3; ++n) {
            const size_t at = random() % (bytes.size() - 68);
            damaged[at] = static_cast<char>(random() % 3 ? random() : 0xff * (random() % 2));
        }
        testing::write_file(path_, damaged);
        try {
            sharding::open_gguf(path_);
        } catch (const Error& e) {
            ASSERT_TRUE(e.code() == ErrorCode::kBadContent || e.code() == ErrorCode::kUnsupported)
                << e.what();
            ASSERT_NE(std::string(e.what()).find(path_), std::string::npos) << e.what();
        }
    }
}

}  // namespace
}  // namespace conclave
