// What a hostile header may cost: a few times its own size, counted at the allocator.
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>

#include "runtime/base/error.h"
#include "runtime/base/text.h"
#include "sharding/checkpoint/gguf/checkpoint.h"
#include "sharding/checkpoint/reader.h"
#include "tests/support/gguf_file.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace {
std::atomic<int64_t> live{0}, peak{0};

void* counted_allocate(size_t bytes) {
    void* p = std::malloc(bytes ? bytes : 1);
    if (!p) throw std::bad_alloc();
    const int64_t now = live += static_cast<int64_t>(malloc_usable_size(p));
    for (int64_t old = peak; now > old && !peak.compare_exchange_weak(old, now);) continue;
    return p;
}
void counted_free(void* p) {
    if (p) live -= static_cast<int64_t>(malloc_usable_size(p));
    std::free(p);
}
}  // namespace

void* operator new(size_t bytes) { return counted_allocate(bytes); }
void operator delete(void* p) noexcept { counted_free(p); }
void operator delete(void* p, size_t) noexcept { counted_free(p); }

namespace conclave {
namespace {

using testing::GgufFile;
using testing::le;
using testing::raw_safetensors;
using testing::TempDir;
using testing::write_file;

/// The most memory that opening a file of these bytes held at one time.
template <class Open>
int64_t cost_of(const std::string& bytes, bool is_good, Open open, const char* name) {
    const TempDir dir;
    const std::string path = dir / name;
    write_file(path, bytes);
    const int64_t before = live;
    peak = before;
    bool opened = false;
    try {
        open(path);
        opened = true;
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kBadContent) << e.what();
    }
    EXPECT_EQ(opened, is_good);
    EXPECT_EQ(live, before);
    return peak - before;
}
int64_t cost_of(const std::string& bytes, bool is_good) {
    return cost_of(bytes, is_good, sharding::Checkpoint::open, "f.safetensors");
}
int64_t cost_of(const GgufFile& file, bool is_good) {
    return cost_of(file.bytes(), is_good, sharding::open_gguf, "f.gguf");
}

constexpr size_t kHeader = 8'000'000;

/// A header of about kHeader bytes made of one piece each: piece(i) for i = 0, 1, ...
template <class F>
std::string header_of(F piece) {
    std::string header = "{";
    for (size_t i = 0; header.size() < kHeader; ++i) {
        if (i) header += ',';
        header += piece(i);
    }
    return header + "}";
}

TEST(HeaderMemory, ClaimsCostNothing) {
    constexpr int64_t kLittle = 200'000;
    std::string length(8, '\0');
    length[7] = 0x10;  // 2^60
    EXPECT_LT(cost_of(length + "{}", false), kLittle);
    EXPECT_LT(cost_of(std::string("\0\xe1\xf5\x05\0\0\0\0", 8) + "{}", false), kLittle);  // 10^8
    const std::string huge =
        R"({"t":{"dtype":"U8","shape":[4611686018427387904],"data_offsets":[0,4611686018427387904]}})";
    EXPECT_LT(cost_of(raw_safetensors(huge, "x"), false), kLittle);
}

TEST(HeaderMemory, ProportionalToTheHeader) {
    constexpr auto kMost = static_cast<int64_t>(kHeader * 5);
    const auto named = [](size_t i, const std::string& rest) {
        return in_quotes(std::to_string(i)) + ":" + rest;
    };
    std::string deep_shape = "{\"dtype\":\"U8\",\"shape\":[0";
    for (int i = 1; i < 32; ++i) deep_shape += ",0";
    deep_shape += "],\"data_offsets\":[0,0]}";
    const std::string empty = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";

    EXPECT_LT(
        cost_of(raw_safetensors(header_of([&](size_t i) { return named(i, empty); }), ""), true),
        kMost)
        << "smallest entries";
    EXPECT_LT(
        cost_of(raw_safetensors(header_of([&](size_t i) { return named(i, deep_shape); }), ""),
                true),
        kMost)
        << "most dimensions";
    EXPECT_LT(
        cost_of(raw_safetensors(header_of([&](size_t i) { return named(i, "{}"); }), ""), false),
        kMost)
        << "braces only";
    const auto metadata = header_of([&](size_t i) { return named(i, "\"\""); });
    EXPECT_LT(cost_of(raw_safetensors("{\"__metadata__\":" + metadata + "}", ""), false), kMost)
        << "metadata";
    EXPECT_LT(cost_of(raw_safetensors("{\"" + std::string(kHeader, 'x') + "\":{}}", ""), false),
              kMost)
        << "one name";
    EXPECT_LT(cost_of(raw_safetensors(std::string(kHeader, '{'), ""), false), kMost) << "depth";
}

GgufFile gguf() {
    GgufFile file;
    file.alignment = 1;
    file.text("general.architecture", "llama").u32("general.alignment", 1);
    return file;
}

TEST(GgufMemory, ClaimsCostNothing) {
    constexpr int64_t kLittle = 300'000;
    for (const uint64_t claim : {uint64_t{1} << 20, uint64_t{1} << 31, uint64_t{1} << 60}) {
        GgufFile tensors = gguf(), pairs = gguf();
        tensors.claimed_tensors = pairs.claimed_pairs = claim;
        EXPECT_LT(cost_of(tensors, false), kLittle);
        EXPECT_LT(cost_of(pairs, false), kLittle);
        EXPECT_LT(cost_of(gguf().pair("k", GgufFile::kText, le(claim)), false), kLittle);
        EXPECT_LT(cost_of(gguf().array("k", GgufFile::kText, claim, ""), false), kLittle);
        EXPECT_LT(cost_of(gguf().array("k", GgufFile::kF64, claim, ""), false), kLittle);
        EXPECT_LT(cost_of(gguf().tensor("t", {claim}, 0, ""), false), kLittle);
        EXPECT_LT(cost_of(gguf()
                              .u32("llama.expert_count", 4096)
                              .tensor("blk.0.ffn_up_exps.weight", {0, claim, 4096}, 0, ""),
                          false),
                  kLittle);
    }
}

TEST(GgufMemory, ProportionalToTheHeader) {
    const auto check = [](const GgufFile& file, bool is_good, const char* what, size_t times) {
        const auto most = static_cast<int64_t>(times * file.header().size());
        EXPECT_LT(cost_of(file, is_good), most) << what;
    };
    check(gguf().texts("t", std::vector<std::string>(kHeader / 8)), true, "empty strings", 4);
    check(gguf().text("t", std::string(kHeader, 'x')), true, "one string", 4);
    GgufFile pairs = gguf(), tensors = gguf(), scalars = gguf(), long_names = gguf();
    for (int i = 0; i < 65'000; ++i)
        pairs.pair(std::to_string(i), GgufFile::kU8, std::string_view("x"));
    check(pairs, true, "smallest pairs", 15);
    for (int i = 0; i < 200'000; ++i) {
        tensors.tensor(std::to_string(i), {0, 0, 0, 0}, 0, "");
        scalars.tensor(std::to_string(i), {}, 24, "x");
        long_names.tensor("blk." + std::to_string(i) + ".attn_q_norm.weight", {0}, 24, "");
    }
    check(tensors, true, "tensors of many extents", 10);
    check(scalars, true, "smallest tensors", 15);
    check(long_names, true, "tensors with longer names", 10);
}

}  // namespace
}  // namespace conclave
