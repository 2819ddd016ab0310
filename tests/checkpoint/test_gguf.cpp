// GGUF files as checkpoints: names, shapes and places of tensors, split sets, directories.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "runtime/base/json.h"
#include "sharding/checkpoint/gguf/checkpoint.h"
#include "sharding/checkpoint/reader.h"
#include "tests/checkpoint/expect.h"
#include "tests/support/gguf_file.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/sha256.h"
#include "tests/support/temp_dir.h"

namespace conclave {
namespace {

namespace fs = std::filesystem;
using sharding::Checkpoint;
using sharding::StoredTensor;
using testing::expect_error;
using testing::GgufFile;

/// Bytes that say which tensor they are of, and where in it.
std::string filler(size_t bytes, unsigned seed) {
    std::string data(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i)
        data[i] = static_cast<char>((i + 1) * 2654435761u * (seed + 1) >> 13);
    return data;
}

std::string stored(const Checkpoint& checkpoint, const StoredTensor& t) {
    std::string data(t.bytes, '?');
    checkpoint.read(t.file, t.offset, std::as_writable_bytes(std::span(data)));
    return data;
}

class Gguf : public ::testing::Test {
  protected:
    std::shared_ptr<const Checkpoint> open(const GgufFile& file) {
        testing::write_file(path_, file.bytes());
        return sharding::open_gguf(path_);
    }
    void expect(const Checkpoint& checkpoint, const std::string& name, const std::string& described,
                const std::string& data) {
        SCOPED_TRACE(name);
        const StoredTensor* t = checkpoint.find(name);
        ASSERT_TRUE(t);
        EXPECT_EQ(t->describe(), described);
        EXPECT_EQ(stored(checkpoint, *t), data);
    }
    const testing::TempDir dir_;
    const std::string path_ = dir_ / "m.gguf";
};

TEST_F(Gguf, NamesOfDenseModels) {
    const std::map<std::string, std::string> names = {
        {"token_embd.weight", "model.embed_tokens.weight"},
        {"output_norm.weight", "model.norm.weight"},
        {"output.weight", "lm_head.weight"},
        {"rope_freqs.weight", "rope_freqs.weight"},
        {"blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"},
        {"blk.10.ffn_norm.weight", "model.layers.10.post_attention_layernorm.weight"},
        {"blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj.weight"},
        {"blk.1.attn_k.weight", "model.layers.1.self_attn.k_proj.weight"},
        {"blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight"},
        {"blk.1.attn_output.weight", "model.layers.1.self_attn.o_proj.weight"},
        {"blk.1.attn_v.bias", "model.layers.1.self_attn.v_proj.bias"},
        {"blk.1.attn_q_norm.weight", "model.layers.1.self_attn.q_norm.weight"},
        {"blk.1.attn_k_norm.weight", "model.layers.1.self_attn.k_norm.weight"},
        {"blk.1.ffn_gate.weight", "model.layers.1.mlp.gate_proj.weight"},
        {"blk.1.ffn_up.weight", "model.layers.1.mlp.up_proj.weight"},
        {"blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"},
        // What has no name there keeps its own.
        {"blk.1.attn_sinks.weight", "blk.1.attn_sinks.weight"},
        {"blk.01.attn_q.weight", "blk.01.attn_q.weight"},
        {"blk..attn_q.weight", "blk..attn_q.weight"},
        {"blk.1234567890.attn_q.weight", "blk.1234567890.attn_q.weight"},
        {"blk.1.attn_q.weights", "blk.1.attn_q.weights"},
        {"attn_q.weight", "attn_q.weight"},
        {"blk.1.ffn_side_exps.weight", "blk.1.ffn_side_exps.weight"},
        {"blk.1.ffn_gate.x.weight", "blk.1.ffn_gate.x.weight"},
        {"weight", "weight"},
        {"", ""},
    };
    for (const char* architecture : {"llama", "qwen2", "qwen3"}) {
        GgufFile file;
        file.text("general.architecture", architecture);
        unsigned seed = 0;
        for (const auto& [own, theirs] : names)
            file.tensor(own, {3, 2}, GgufFile::kTensorF32, filler(24, seed++));
        const auto checkpoint = open(file);
        EXPECT_EQ(checkpoint->tensors().size(), names.size());
        seed = 0;
        for (const auto& [own, theirs] : names)
            expect(*checkpoint, theirs, "F32 [2, 3]", filler(24, seed++));
        for (size_t i = 1; i < names.size(); ++i)
            EXPECT_LT(checkpoint->tensors()[i - 1].name, checkpoint->tensors()[i].name);
        EXPECT_EQ(checkpoint->metadata("general.architecture"), std::nullopt);
        EXPECT_EQ(checkpoint->find("no such"), nullptr);
    }
}

TEST_F(Gguf, BiasesOfPermutedRowsAreRefused) {
    for (const std::string projection : {"q", "k"}) {
        const std::string name = "blk.1.attn_" + projection + ".bias";
        GgufFile file;
        file.text("general.architecture", "llama")
            .tensor(name, {2}, GgufFile::kTensorF32, filler(8, 1));
        expect_error([&] { open(file); }, ErrorCode::kUnsupported, {name, "permuted", path_});
    }
}

/// Experts e of gate, up, down: Q8_0 matrices [6, 64], [6, 64], [64, 32] in slabs.
TEST_F(Gguf, Experts) {
    constexpr size_t kExperts = 3, kWide = 6 * 2 * 34, kDown = 64 * 34;
    for (const std::string architecture : {"llama", "qwen2moe", "qwen3moe", "olmoe"}) {
        SCOPED_TRACE(architecture);
        const bool is_mixtral = architecture == "llama";
        const std::string gate = filler(kExperts * kWide, 1), up = filler(kExperts * kWide, 2),
                          down = filler(kExperts * kDown, 3), router = filler(64 * 3 * 4, 4);
        GgufFile file;
        file.text("general.architecture", architecture)
            .u32(architecture + ".expert_count", kExperts)
            .tensor("blk.4.ffn_up_exps.weight", {64, 6, 3}, GgufFile::kTensorQ8_0, up)
            .tensor("blk.4.ffn_gate_inp.weight", {64, 3}, GgufFile::kTensorF32, router)
            .tensor("blk.4.ffn_gate_exps.weight", {64, 6, 3}, GgufFile::kTensorQ8_0, gate)
            .tensor("blk.4.ffn_down_exps.weight", {32, 64, 3}, GgufFile::kTensorQ8_0, down)
            .tensor("blk.4.ffn_gate_exps.bias", {6, 3}, GgufFile::kTensorF32, filler(72, 5))
            .tensor("blk.4.ffn_gate_shexp.weight", {2, 3}, GgufFile::kTensorF32, filler(24, 6))
            .tensor("blk.4.ffn_gate_inp_shexp.weight", {5}, GgufFile::kTensorF32, filler(20, 7));
        const auto checkpoint = open(file);
        const std::string layer = "model.layers.4.";
        const std::string moe = layer + (is_mixtral ? "block_sparse_moe." : "mlp.");
        expect(*checkpoint, moe + "gate.weight", "F32 [3, 64]", router);
        for (size_t e = 0; e < kExperts; ++e) {
            const std::string expert = moe + "experts." + std::to_string(e) + ".";
            const auto name = [&](const char* mixtral, const char* other) {
                return expert + (is_mixtral ? mixtral : other);
            };
            expect(*checkpoint, name("w1.weight", "gate_proj.weight"), "Q8_0 [6, 64]",
                   gate.substr(e * kWide, kWide));
            expect(*checkpoint, name("w3.weight", "up_proj.weight"), "Q8_0 [6, 64]",
                   up.substr(e * kWide, kWide));
            expect(*checkpoint, name("w2.weight", "down_proj.weight"), "Q8_0 [64, 32]",
                   down.substr(e * kDown, kDown));
            expect(*checkpoint, name("w1.bias", "gate_proj.bias"), "F32 [6]",
                   filler(72, 5).substr(e * 24, 24));
        }
        expect(*checkpoint, layer + "mlp.shared_expert.gate_proj.weight", "F32 [3, 2]",
               filler(24, 6));
        expect(*checkpoint, layer + "mlp.shared_expert_gate.weight", "F32 [1, 5]", filler(20, 7));
        EXPECT_EQ(checkpoint->tensors().size(), 3 + 4 * kExperts);
    }
}

TEST_F(Gguf, ExpertsOneByOneAndFused) {
    constexpr size_t kHalf = 2 * 12;  // two rows of three
    const std::string fused = filler(3 * 2 * kHalf, 1);
    const auto checkpoint = open(GgufFile()
                                     .text("general.architecture", "llama")
                                     .u32("llama.expert_count", 3)
                                     .tensor("blk.0.ffn_gate.2.weight", {2, 3}, 0, filler(24, 2))
                                     .tensor("blk.0.ffn_up.0.weight", {2, 3}, 0, filler(24, 3))
                                     .tensor("blk.0.ffn_down.11.weight", {2, 3}, 0, filler(24, 4))
                                     .tensor("blk.1.ffn_gate_up_exps.weight", {3, 4, 3}, 0, fused));
    const auto name = [](int layer, const std::string& rest) {
        return "model.layers." + std::to_string(layer) + ".block_sparse_moe.experts." + rest;
    };
    expect(*checkpoint, name(0, "2.w1.weight"), "F32 [3, 2]", filler(24, 2));
    expect(*checkpoint, name(0, "0.w3.weight"), "F32 [3, 2]", filler(24, 3));
    expect(*checkpoint, name(0, "11.w2.weight"), "F32 [3, 2]", filler(24, 4));
    for (size_t e = 0; e < 3; ++e) {
        const std::string expert = std::to_string(e);
        expect(*checkpoint, name(1, expert + ".w1.weight"), "F32 [2, 3]",
               fused.substr(2 * e * kHalf, kHalf));
        expect(*checkpoint, name(1, expert + ".w3.weight"), "F32 [2, 3]",
               fused.substr((2 * e + 1) * kHalf, kHalf));
    }
    EXPECT_EQ(checkpoint->tensors().size(), 9u);
}

TEST_F(Gguf, ScalesOfNvfp4) {
    const std::string scales = filler(8, 1), inputs = filler(8, 2), both = filler(8, 3);
    const auto checkpoint =
        open(GgufFile()
                 .text("general.architecture", "qwen3moe")
                 .u32("qwen3moe.expert_count", 2)
                 .tensor("blk.0.attn_q.weight", {64, 2}, GgufFile::kTensorNVFP4, filler(72, 4))
                 .tensor("blk.0.attn_q.scale", {1}, 0, filler(4, 5))
                 .tensor("blk.0.attn_q.input_scale", {}, 0, filler(4, 6))
                 .tensor("output.scale", {}, 0, filler(4, 7))
                 .tensor("blk.0.ffn_down_exps.scale", {2}, 0, scales)
                 .tensor("blk.0.ffn_down_exps.input_scale", {2}, 0, inputs)
                 .tensor("blk.0.ffn_gate_up_exps.scale", {2}, 0, both));
    const std::string attention = "model.layers.0.self_attn.q_proj.";
    expect(*checkpoint, attention + "weight", "NVFP4 [2, 64]", filler(72, 4));
    expect(*checkpoint, attention + "weight_scale_2", "F32 [1]", filler(4, 5));
    expect(*checkpoint, attention + "input_scale", "F32 [1]", filler(4, 6));
    expect(*checkpoint, "lm_head.weight_scale_2", "F32 [1]", filler(4, 7));
    for (size_t e = 0; e < 2; ++e) {
        const std::string expert = "model.layers.0.mlp.experts." + std::to_string(e) + ".";
        const auto of = [&](const std::string& all) { return all.substr(4 * e, 4); };
        expect(*checkpoint, expert + "down_proj.weight_scale_2", "F32 [1]", of(scales));
        expect(*checkpoint, expert + "down_proj.input_scale", "F32 [1]", of(inputs));
        expect(*checkpoint, expert + "gate_proj.weight_scale_2", "F32 [1]", of(both));
        expect(*checkpoint, expert + "up_proj.weight_scale_2", "F32 [1]", of(both));
    }
    EXPECT_EQ(checkpoint->tensors().size(), 12u);
}

TEST_F(Gguf, HeaderLargerThanARead) {
    std::vector<std::string> words;
    for (int i = 0; i < 100'000; ++i) words.push_back("word" + std::to_string(i));
    GgufFile file;
    file.text("general.architecture", "qwen2").texts("words", words);
    file.tensor("x", {1 << 18}, GgufFile::kTensorF32, filler(size_t{4} << 18, 1));
    const auto checkpoint = open(file);
    EXPECT_LT(checkpoint->counters().bytes, file.header().size() + 100'000);
    expect(*checkpoint, "x", "F32 [262144]", filler(size_t{4} << 18, 1));
    const uint64_t before = checkpoint->files().at(0).header_hash;
    words[70'000][4] = 'x';
    GgufFile other;
    other.text("general.architecture", "qwen2").texts("words", words);
    other.tensor("x", {1 << 18}, GgufFile::kTensorF32, filler(size_t{4} << 18, 1));
    const auto changed = open(other);
    EXPECT_NE(changed->files().at(0).header_hash, before);
    EXPECT_NE(changed->fingerprint(), checkpoint->fingerprint());
}

class GgufSet : public Gguf {
  protected:
    std::string part(int i, int n, const std::string& stem = "m") const {
        char name[64];
        std::snprintf(name, sizeof name, "%s-%05d-of-%05d.gguf", stem.c_str(), i, n);
        return dir_ / name;
    }
    static GgufFile content(int i, uint16_t no, uint16_t count, int32_t total) {
        GgufFile file;
        if (i == 0) file.text("general.architecture", "qwen2");
        file.u16("split.no", no).u16("split.count", count).i32("split.tensors.count", total);
        for (int t = 0; t < i; ++t)
            file.tensor("t" + std::to_string(i) + std::to_string(t), {2}, 0,
                        filler(8, static_cast<unsigned>(10 * i + t)));
        return file;
    }
    /// Parts of 0, 1, 2 tensors.
    void write_set() const {
        for (int i = 0; i < 3; ++i)
            testing::write_file(part(i + 1, 3), content(i, static_cast<uint16_t>(i), 3, 3).bytes());
    }
    void refuses(const std::string& path, ErrorCode code, const std::vector<std::string>& parts) {
        expect_error([&] { sharding::open_gguf(path); }, code, parts);
    }
};

TEST_F(GgufSet, OpensFromAnyPartAndDirectory) {
    write_set();
    for (const std::string& path : {part(1, 3), part(2, 3), part(3, 3), dir_.path()}) {
        const auto checkpoint = sharding::open_gguf(path);
        ASSERT_EQ(checkpoint->files().size(), 3u);
        for (int i = 0; i < 3; ++i)
            EXPECT_EQ(checkpoint->files()[static_cast<size_t>(i)].path, part(i + 1, 3));
        EXPECT_EQ(checkpoint->tensors().size(), 3u);
        expect(*checkpoint, "t10", "F32 [2]", filler(8, 10));
        expect(*checkpoint, "t20", "F32 [2]", filler(8, 20));
        expect(*checkpoint, "t21", "F32 [2]", filler(8, 21));
    }
}

TEST_F(GgufSet, RefusesBrokenSets) {
    write_set();
    const auto rewrite = [&](int i, uint16_t no, uint16_t count, int32_t total) {
        testing::write_file(part(i + 1, 3), content(i, no, count, total).bytes());
    };
    const auto bad = ErrorCode::kBadContent;
    rewrite(1, 2, 3, 3);
    refuses(part(1, 3), bad, {part(2, 3), "\"split.no\"", "expected 1", "found 2"});
    rewrite(1, 1, 4, 3);
    refuses(part(1, 3), bad, {part(2, 3), "\"split.count\"", "expected 3", "found 4"});
    testing::write_file(part(2, 3), GgufFile().tensor("t", {2}, 0, filler(8, 1)).bytes());
    refuses(part(3, 3), bad, {part(2, 3), "\"split.count\"", "no such key"});
    rewrite(1, 1, 3, 3);
    rewrite(0, 0, 3, 4);
    refuses(part(1, 3), bad, {part(1, 3), "split.tensors.count", "expected 4", "found 3"});
    rewrite(0, 0, 3, 3);
    testing::write_file(part(3, 3), content(2, 2, 3, 3).tensor("t10", {2}, 0, "12345678").bytes());
    rewrite(0, 0, 3, 4);
    refuses(part(1, 3), bad, {part(2, 3), "tensor t10", "stored twice", "also " + part(3, 3)});
    fs::remove(part(2, 3));
    refuses(part(1, 3), ErrorCode::kMissingFile, {part(2, 3), "all 3 parts"});
    refuses(dir_.path(), ErrorCode::kMissingFile, {part(2, 3)});
    fs::remove(part(1, 3));
    refuses(part(3, 3), ErrorCode::kMissingFile, {part(1, 3), "all 3 parts"});

    testing::write_file(path_, content(0, 0, 3, 3).bytes());
    refuses(path_, bad, {path_, "\"split.count\"", "NAME-00001-of-00003.gguf", "found 3"});
    testing::write_file(path_, content(0, 0, 0, 0).bytes());  // as merged files are
    EXPECT_NO_THROW(sharding::open_gguf(path_));
    testing::write_file(part(1, 1), content(0, 0, 1, 0).bytes());
    EXPECT_NO_THROW(sharding::open_gguf(part(1, 1)));
    testing::write_file(part(3, 2), content(0, 0, 0, 0).bytes());  // a name of no set
    EXPECT_NO_THROW(sharding::open_gguf(part(3, 2)));
}

TEST_F(GgufSet, Directories) {
    const auto readers = sharding::CheckpointReaders::built_in();
    refuses(dir_.path(), ErrorCode::kMissingFile, {dir_.path(), "a .gguf file"});
    refuses(dir_ / "absent.gguf", ErrorCode::kMissingFile, {dir_ / "absent.gguf"});
    EXPECT_FALSE(sharding::looks_like_gguf(dir_.path()));
    EXPECT_FALSE(sharding::looks_like_gguf(dir_ / "absent.gguf"));
    EXPECT_FALSE(readers.self_contained(dir_.path(), "auto"));

    write_set();
    EXPECT_TRUE(sharding::looks_like_gguf(dir_.path()));
    EXPECT_TRUE(readers.self_contained(dir_.path(), "auto"));
    EXPECT_EQ(readers.open(dir_.path(), "auto")->files().size(), 3u);
    testing::write_file(dir_ / "a.gguf", content(0, 0, 0, 0).bytes());
    refuses(dir_.path(), ErrorCode::kBadContent, {dir_.path(), "a.gguf, m-00001-of-00003.gguf"});

    testing::write_file(dir_ / "model.bin", content(0, 0, 0, 0).bytes());
    EXPECT_TRUE(sharding::looks_like_gguf(dir_ / "model.bin"));
    EXPECT_EQ(readers.open(dir_ / "model.bin", "auto")->files().size(), 1u);
    testing::write_file(dir_ / "text.gguf", "nothing");
    EXPECT_TRUE(sharding::looks_like_gguf(dir_ / "text.gguf"));
    testing::write_file(dir_ / "text", "nothing");
    EXPECT_FALSE(sharding::looks_like_gguf(dir_ / "text"));

    testing::write_file(dir_ / "model.safetensors", testing::safetensors_bytes({}));
    EXPECT_FALSE(sharding::looks_like_gguf(dir_.path()));
    EXPECT_FALSE(readers.self_contained(dir_.path(), "auto"));
    EXPECT_EQ(readers.open(dir_.path(), "auto")->files().at(0).path, dir_ / "model.safetensors");
}

/// As float32; empty for types of blocks.
std::string widened(const Checkpoint& checkpoint, const StoredTensor& t) {
    const std::string data = stored(checkpoint, t);
    if (t.type == sharding::StoredType::kF32) return data;
    if (t.type != sharding::StoredType::kF16 && t.type != sharding::StoredType::kBF16) return "";
    std::string wide;
    for (size_t i = 0; i < data.size(); i += 2) {
        uint16_t half = 0;
        std::memcpy(&half, &data[i], 2);
        wide += testing::le(t.type == sharding::StoredType::kF16 ? f16_to_f32(half)
                                                                 : bf16_to_f32(half));
    }
    return wide;
}

/// How many tensors both have, all of which must have one shape.
size_t equal_shapes(const Checkpoint& a, const Checkpoint& b) {
    size_t both = 0;
    for (const StoredTensor& t : a.tensors()) {
        const StoredTensor* other = b.find(t.name);
        if (!other) continue;
        EXPECT_EQ(t.shape, other->shape) << t.name;
        ++both;
    }
    return both;
}

/// Every tensor of the models that other programs wrote, under the names of its reference, and the
/// values of those that are stored as floats.
TEST(GgufZoo, NamesAndFloats) {
    const fs::path zoo = CONCLAVE_SOURCE_DIR "/../shared/zoo/gguf";
    if (!fs::exists(zoo)) GTEST_SKIP() << "no collection of models beside the sources";
    const auto readers = sharding::CheckpointReaders::built_in();
    size_t models = 0, floats = 0, shapes = 0;
    for (const fs::directory_entry& entry : fs::directory_iterator(zoo)) {
        const std::string path = entry.path().string();
        constexpr std::string_view kReference = ".expected.json";
        if (!path.ends_with(kReference)) continue;
        SCOPED_TRACE(path);
        const std::string stem = path.substr(0, path.size() - kReference.size());
        const std::string single = stem + ".gguf";
        const auto checkpoint =
            readers.open(fs::exists(single) ? single : stem + "-00002-of-00002.gguf", "auto");
        const Json expected = parse_json_file(path).at("weights_f32_sha256");
        size_t named = 0;
        for (const StoredTensor& t : checkpoint->tensors()) {
            if (t.name == "rope_freqs.weight") continue;
            ++named;
            const auto hash = expected.find(t.name);
            ASSERT_TRUE(hash != expected.end()) << t.name;
            const std::string wide = widened(*checkpoint, t);
            const bool is_permuted = stem.find("llama") != std::string::npos ||
                                     stem.find("mixtral") != std::string::npos;
            if (wide.empty() || (is_permuted && t.name.find("self_attn") != std::string::npos))
                continue;
            EXPECT_EQ(testing::sha256(wide), hash->get<std::string>()) << t.name;
            ++floats;
        }
        EXPECT_EQ(named, expected.size());
        const std::string model = fs::path(stem).filename().string();
        const fs::path source = zoo.parent_path() / "models" / model.substr(0, model.find('-'));
        if (fs::exists(source)) shapes += equal_shapes(*checkpoint, *Checkpoint::open(source));
        ++models;
    }
    EXPECT_GT(models, 0u);
    EXPECT_GT(floats, 100u);
    EXPECT_GT(shapes, 100u);
}

}  // namespace
}  // namespace conclave
