// GGUF's types of blocks: against values of the format's own library, the definitions element by
// element, cuts, the order of rows, damaged files, and the kernels that multiply them.
#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <fstream>
#include <functional>

#include <nlohmann/json.hpp>

#include "quant/formats/formats.h"
#include "quant/formats/gguf_codec.h"
#include "tests/quant/formats/gguf_reference.h"
#include "tests/quant/formats/memory_tensors.h"
#include "tests/support/sha256.h"

namespace conclave::quant {
namespace {

using nlohmann::json;
using test::MemoryTensors;

std::unique_ptr<QuantizationConfig> make(const json& config = json::object()) {
    return gguf_format().from_config(config, "the-file");
}

MemoryTensors one_tensor(const std::string& name, const std::string& type,
                         std::vector<int64_t> shape, const std::vector<uint8_t>& bytes) {
    MemoryTensors tensors;
    tensors.all[name] = test::tensor(type, std::move(shape), bytes);
    return tensors;
}

/// Where a block of the type has numbers of f16.
std::vector<int64_t> halves_of(const std::string& type) {
    if (type == "MXFP4" || type == "NVFP4" || type == "IQ1_M") return {};
    if (type == "Q4_1" || type == "Q5_1" || type == "Q4_K" || type == "Q5_K") return {0, 2};
    if (type == "Q2_K") return {80, 82};
    if (type == "Q3_K") return {108};
    if (type == "Q6_K") return {208};
    if (type == "TQ1_0") return {52};
    if (type == "TQ2_0") return {64};
    return {0};
}

/// Random bits; factors are finite, often 0, subnormal or negative.
std::vector<uint8_t> random_blocks(const BlockType& type, int64_t blocks, std::mt19937& rng) {
    std::vector<uint8_t> bytes(static_cast<size_t>(blocks * type.bytes));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
    for (int64_t i = 0; i < blocks; ++i) {
        uint8_t* block = bytes.data() + i * type.bytes;
        if (type.name == std::string("MXFP4") && block[0] == 255) block[0] = 0;
        if (type.name == std::string("IQ1_M") && (block[55] & 0x70) == 0x70) block[55] &= 0x8f;
        for (const int64_t at : halves_of(type.name)) {
            uint8_t& high = block[at + 1];
            if (rng() % 8 == 0) high &= 0x83;  // 0 or subnormal
            if (rng() % 8 == 0) high &= 0x80, block[at] = 0;
            if ((high & 0x7c) == 0x7c) high &= 0xbf;
        }
    }
    return bytes;
}

std::vector<float> reference(const BlockType& type, const std::vector<uint8_t>& bytes) {
    std::vector<float> values;
    for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(type.bytes))
        for (int e = 0; e < type.elements; ++e)
            values.push_back(test::GgufBlock(type.name, bytes.data() + at).value(e));
    return values;
}

TEST(Gguf, GoldenBlocksOfEveryType) {
    std::ifstream in(std::string(CONCLAVE_SOURCE_DIR) + "/tests/fixtures/gguf/golden-blocks.json");
    const json golden = json::parse(in);
    std::mt19937 rng(1);
    size_t found = 0;
    for (const auto& [key, block] : golden["types"].items()) {
        std::string name = key;
        for (char& c : name) c = static_cast<char>(std::toupper(c));
        const BlockType* type = find_block_type(name);
        ASSERT_NE(type, nullptr) << name;
        ++found;
        EXPECT_EQ(type->elements, block["block_elems"]);
        EXPECT_EQ(type->bytes, block["block_bytes"]);
        const std::string hex = block["hex"];
        std::vector<uint8_t> bytes;
        for (size_t i = 0; i < hex.size(); i += 2)
            bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
        const MemoryTensors tensors =
            one_tensor("m.weight", type->name, {1, type->elements}, bytes);
        const auto m = make()->describe(test::matrix_source("m", 1, type->elements), tensors);
        ASSERT_TRUE(m);
        const auto values =
            test::decode_rows(*m, {0, 1}, {0, type->elements}, tensors.reader(*m), rng);
        ASSERT_EQ(values.size(), block["values"].size());
        for (size_t i = 0; i < values.size(); ++i) {
            const auto want = block["values"][i].get<float>();
            ASSERT_EQ(std::memcmp(&values[i], &want, 4), 0)
                << type->name << " [" << i << "] " << values[i] << " for " << want;
        }
    }
    EXPECT_EQ(found, 25u);
    EXPECT_EQ(block_types().size(), 25u);
}

TEST(Gguf, RandomBlocksOfEveryTypeAndTheirCuts) {
    std::mt19937 rng(2);
    for (const BlockType& type : block_types())
        for (int round = 0; round < 12; ++round) {
            const int64_t n = 1 + static_cast<int64_t>(rng() % 9);
            const int64_t k = type.elements * (1 + static_cast<int64_t>(rng() % 4));
            const auto bytes = random_blocks(type, n * k / type.elements, rng);
            MemoryTensors tensors = one_tensor("m.weight", type.name, {n, k}, bytes);
            // A part of the stored rows, as of a fused matrix; or one of a stack.
            MatrixSource source = test::matrix_source("m", n, k);
            const Interval rows = test::random_cut(n, rng);
            source.n = rows.size(), source.row_offset = rows.begin;
            if (round % 4 == 3) {
                source = test::matrix_source("m.weight", 1, k);
                source.bare = true, source.lead = rows.begin, source.lead_count = n;
                tensors.all["m.weight"].header.shape = {n, 1, k};
            }
            const auto m = make()->describe(source, tensors);
            ASSERT_TRUE(m);
            const auto all = reference(type, bytes);
            const auto first = all.begin() + rows.begin * k;
            const std::vector<float> part(first, first + source.n * k);
            SCOPED_TRACE(std::string(type.name) + " " + std::to_string(n) + " x " +
                         std::to_string(k));
            test::expect_cuts(*m, part, tensors.reader(*m), 12, rng);
            if (HasFatalFailure()) return;
        }
}

TEST(Gguf, Codebooks) {
    const auto hash = [](const uint16_t* entries, int64_t count, std::vector<int> levels) {
        const int bits = levels.size() > 4 ? 3 : 2, elements = bits == 3 ? 4 : 8;
        std::string bytes;
        for (int64_t i = 0; i < count; ++i)
            for (int e = 0; e < elements; ++e)
                bytes += static_cast<char>(
                    levels.at(static_cast<size_t>(entries[i] >> bits * e & ((1 << bits) - 1))));
        return testing::sha256(bytes);
    };
    // Of the elements as signed bytes, made of the package's arrays.
    EXPECT_EQ(hash(test::kIq2xxsGrid, 256, {8, 25, 43}),
              "05826b5d3e472a3a78f196be62ac78acf81df0f909626e12ab9fa2a5d490dd54");
    EXPECT_EQ(hash(test::kIq2xsGrid, 512, {8, 25, 43}),
              "06e47aaca60b4dc1d9b5a3f34540437058a6b142b4d7a59d5ded769b4d1bf1de");
    EXPECT_EQ(hash(test::kIq2sGrid, 1024, {8, 25, 43}),
              "e1aa1473412b0552c2174c30ef22ab4073f6a181b85a17056e8249bd2932fd88");
    EXPECT_EQ(hash(test::kIq1Grid, 2048, {-1, 0, 1}),
              "07540ffc1aeaf6ad4d97e96b0fcc765aae39671d4ae4a27bbd0e796fde167c6a");
    EXPECT_EQ(hash(test::kIq3xxsGrid, 256, {4, 12, 20, 28, 36, 44, 52, 62}),
              "46e35f5a997efdee6c99ce57854c8a0d4f0ff8ca57e5e8a60c0793ea580acf5d");
    EXPECT_EQ(hash(test::kIq3sGrid, 512, {1, 3, 5, 7, 9, 11, 13, 15}),
              "bd1af4945a1717c65610b0284e4628b9a1ba3b306fae3a06f6e5f597356e349f");
}

TEST(Gguf, ScaleOfAMatrixOfNvfp4) {
    std::mt19937 rng(3);
    const BlockType& type = *find_block_type("NVFP4");
    const auto bytes = random_blocks(type, 5 * 3, rng);
    MemoryTensors tensors = one_tensor("m.weight", "NVFP4", {5, 192}, bytes);
    const float scale = 0.0123456f;
    tensors.all["m.weight_scale_2"] = test::tensor("F32", {1}, std::vector<float>{scale});
    tensors.all["m.input_scale"] = test::tensor("F32", {1}, std::vector<float>{3});
    const auto m = make()->describe(test::matrix_source("m", 5, 192), tensors);
    ASSERT_TRUE(m);
    EXPECT_EQ(m->companions, (std::vector<std::string>{"m.weight_scale_2", "m.input_scale"}));
    EXPECT_FALSE(m->activation);
    auto all = reference(type, bytes);
    for (float& v : all) v *= scale;
    test::expect_cuts(*m, all, tensors.reader(*m), 20, rng);
    // Other types have none.
    tensors.all["m.weight"] = test::tensor("Q4_0", {5, 64}, std::vector<uint8_t>(5 * 2 * 18));
    EXPECT_EQ(make()->describe(test::matrix_source("m", 5, 64), tensors)->global, GlobalScale{});
}

/// What the file has of rows [n, k] in order: row 2i of a head is row i, row 2i + 1 row i + d / 2.
template <class T>
std::vector<T> permuted(const std::vector<T>& rows, int64_t width, int64_t d) {
    std::vector<T> out;
    const int64_t n = static_cast<int64_t>(rows.size()) / width;
    for (int64_t r = 0; r < n; ++r) {
        const int64_t head = r / d, i = r % d / 2;
        const int64_t from = head * d + (r % 2 ? i + d / 2 : i);
        out.insert(out.end(), rows.begin() + from * width, rows.begin() + (from + 1) * width);
    }
    return out;
}

TEST(Gguf, RowsOfHeads) {
    std::mt19937 rng(4);
    for (const char* name : {"Q4_0", "Q6_K", "IQ1_M", "F32", "F16", "BF16"})
        for (const int64_t d : {2, 4, 6, 64})
            for (const char* stem : {"a.q_proj", "a.k_proj", "a.v_proj", "a.q_projection"}) {
                const BlockType* type = find_block_type(name);
                const int64_t heads = 1 + static_cast<int64_t>(rng() % 3), n = heads * d;
                const int64_t k = type ? 2 * type->elements : 11;
                const int64_t width = type                               ? 2 * type->bytes
                                      : name[0] == 'F' && name[1] == '3' ? 44
                                                                         : 22;
                std::vector<uint8_t> ordered(static_cast<size_t>(n * width));
                for (uint8_t& b : ordered) b = static_cast<uint8_t>(rng() & 0x3f);
                if (type) ordered = random_blocks(*type, n * 2, rng);
                const bool permutes =
                    std::string(stem) < "a.q_projection" && std::string(stem) != "a.v_proj";
                const auto stored = permutes ? permuted(ordered, width, d) : ordered;
                const std::string tensor = std::string(stem) + ".weight";
                const MemoryTensors in_order = one_tensor(tensor, name, {n, k}, ordered);
                const MemoryTensors in_file = one_tensor(tensor, name, {n, k}, stored);
                const auto plain = make()->describe(test::matrix_source(stem, n, k), in_order);
                const auto all =
                    test::decode_rows(*plain, {0, n}, {0, k}, in_order.reader(*plain), rng);
                MatrixSource source = test::matrix_source(stem, n, k);
                const Interval rows = test::random_cut(n, rng);
                source.n = rows.size(), source.row_offset = rows.begin;
                const auto m = make({{"permuted_head_dim", d}})->describe(source, in_file);
                ASSERT_TRUE(m);
                EXPECT_EQ(m->encoding, plain->encoding);
                EXPECT_EQ(m->codec->rows_per_read(*m), permutes ? d : 1);
                const std::vector<float> part(all.begin() + rows.begin * k,
                                              all.begin() + rows.end * k);
                SCOPED_TRACE(std::string(name) + " " + stem + " " + std::to_string(d));
                test::expect_cuts(*m, part, in_file.reader(*m), 12, rng);
                if (HasFatalFailure()) return;
            }
}

TEST(Gguf, NeedsNoMoreThanTheCut) {
    const MemoryTensors tensors =
        one_tensor("a.q_proj.weight", "Q4_K", {16, 768}, std::vector<uint8_t>(16 * 3 * 144));
    const auto m = make()->describe(test::matrix_source("a.q_proj", 16, 768), tensors);
    const auto needs = [&](const StoredMatrix& of, Interval n, Interval k) {
        return of.codec->needs(of, 0, n, k);
    };
    EXPECT_EQ(m->pieces.size(), 1u);
    EXPECT_EQ(m->pieces[0].element_bytes, 144);
    EXPECT_EQ(m->pieces[0].cols, 3);
    EXPECT_EQ(needs(*m, {3, 5}, {0, 256}).cols, (Interval{0, 1}));
    EXPECT_EQ(needs(*m, {3, 5}, {255, 257}).cols, (Interval{0, 2}));
    EXPECT_EQ(needs(*m, {3, 5}, {256, 512}).cols, (Interval{1, 2}));
    EXPECT_EQ(needs(*m, {3, 5}, {600, 601}).cols, (Interval{2, 3}));
    EXPECT_EQ(needs(*m, {3, 5}, {600, 601}).rows, (Interval{3, 5}));
    EXPECT_TRUE(needs(*m, {3, 3}, {0, 768}).rows.empty());
    EXPECT_TRUE(needs(*m, {3, 5}, {256, 256}).cols.empty());
    const auto heads = make({{"permuted_head_dim", 8}})
                           ->describe(test::matrix_source("a.q_proj", 16, 768), tensors);
    EXPECT_EQ(needs(*heads, {0, 1}, {0, 256}).rows, (Interval{0, 1}));
    EXPECT_EQ(needs(*heads, {3, 5}, {0, 256}).rows, (Interval{1, 7}));  // rows 6 and 1 of the file
    EXPECT_EQ(needs(*heads, {9, 11}, {0, 256}).rows, (Interval{10, 13}));
    EXPECT_EQ(needs(*heads, {4, 12}, {0, 256}).rows, (Interval{1, 15}));
}

TEST(Gguf, EmptyCuts) {
    std::mt19937 rng(5);
    for (const BlockType& type : block_types()) {
        const int64_t k = 2 * type.elements;
        const MemoryTensors tensors =
            one_tensor("a.k_proj.weight", type.name, {4, k}, random_blocks(type, 8, rng));
        for (const json& config : {json::object(), json{{"permuted_head_dim", 4}}}) {
            const auto m = make(config)->describe(test::matrix_source("a.k_proj", 4, k), tensors);
            for (const auto& [n, columns] : {std::pair{Interval{4, 4}, Interval{0, k}},
                                             std::pair{Interval{0, 4}, Interval{k, k}},
                                             std::pair{Interval{0, 0}, Interval{0, 0}},
                                             std::pair{Interval{1, 3}, Interval{7, 7}}}) {
                const auto cut = test::decode_cut(*m, n, columns, tensors.reader(*m), rng);
                EXPECT_TRUE(cut.values.empty());
            }
        }
    }
}

TEST(Gguf, InputsAreInt8BlocksUnlessAskedOtherwise) {
    for (const Encoding& e : gguf_format().encodings) {
        EXPECT_EQ(choose_activation_rule(e, nullptr, Activations::kAuto), kInt8Input)
            << e.to_string();
        EXPECT_EQ(choose_activation_rule(e, nullptr, Activations::kF32), kF32Input);
    }
}

TEST(Gguf, SamplesAreWhatTheCodecReads) {
    std::mt19937 rng(6);
    for (uint64_t seed = 0; seed < 6; ++seed) {
        const StoredSample s = gguf_format().sample(7, 90, seed);
        MemoryTensors tensors;
        for (const auto& t : s.tensors) tensors.all[t.name] = {t.header, t.bytes};
        const auto m = make(json::parse(s.config.dump()))->describe(s.source, tensors);
        ASSERT_TRUE(m);
        EXPECT_GE(s.source.k, 90);
        ASSERT_EQ(static_cast<int64_t>(s.weights.size()), s.source.n * s.source.k);
        test::expect_cuts(*m, s.weights, tensors.reader(*m), 8, rng);
    }
}

/// What the error says; empty: none. Only these two codes.
std::string refused(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        EXPECT_TRUE(e.code() == ErrorCode::kBadContent || e.code() == ErrorCode::kUnsupported);
        return e.what();
    }
    return "";
}

TEST(Gguf, HostileConfigs) {
    for (const json& dim : std::vector<json>{0, 1, 3, -2, 1e30, 2.5, "64", true, json::array(),
                                             INT64_MAX, 2147483648})
        EXPECT_NE(refused([&] {
                      make({{"permuted_head_dim", dim}});
                  }).find("the-file"),
                  std::string::npos)
            << dim;
    EXPECT_EQ(refused([&] { make({{"permuted_head_dim", nullptr}, {"what", "ever"}}); }), "");
    const MemoryTensors tensors =
        one_tensor("a.q_proj.weight", "F32", {6, 2}, std::vector<uint8_t>(48));
    const MatrixSource source = test::matrix_source("a.q_proj", 6, 2);
    const auto describe = [&](int64_t d) {
        return refused([&] { make({{"permuted_head_dim", d}})->describe(source, tensors); });
    };
    EXPECT_EQ(describe(6), "");
    EXPECT_NE(describe(4).find("a.q_proj.weight"), std::string::npos);
    EXPECT_NE(describe(12).find("a.q_proj.weight"), std::string::npos);
}

TEST(Gguf, HostileTensors) {
    const auto format = make();
    EXPECT_FALSE(format->describe(test::matrix_source("absent", 2, 32), MemoryTensors()));
    const auto describe = [&](const std::string& type, const std::vector<int64_t>& shape, int64_t n,
                              int64_t k) {
        const MemoryTensors tensors = one_tensor("m.weight", type, shape, std::vector<uint8_t>(1));
        const std::string what =
            refused([&] { format->describe(test::matrix_source("m", n, k), tensors); });
        EXPECT_TRUE(what.empty() || what.find("m.weight") != std::string::npos) << what;
        return what;
    };
    EXPECT_EQ(describe("Q4_0", {2, 32}, 2, 32), "");
    EXPECT_EQ(describe("BF16", {2, 3}, 2, 3), "");
    EXPECT_NE(describe("Q4_0", {32, 2}, 2, 32), "");
    EXPECT_NE(describe("Q4_0", {64}, 2, 32), "");
    EXPECT_NE(describe("Q4_0", {1, 2, 32}, 2, 32), "");
    EXPECT_NE(describe("Q4_0", {2, INT64_MAX}, 2, 32), "");
    EXPECT_NE(describe("Q4_0", {2, 33}, 2, 33).find("multiples of 32"), std::string::npos);
    EXPECT_NE(describe("F32", {2, 32}, 2, 31), "");
    for (const BlockType& t : block_types()) {
        EXPECT_EQ(describe(t.name, {3, t.elements}, 3, t.elements), "");
        EXPECT_NE(describe(t.name, {3, t.elements + 8}, 3, t.elements + 8), "") << t.name;
    }
    for (const char* type : {"Q8_1", "Q8_K", "I8", "U8", "F64", "F8_E4M3", "Q4_0_4_4", "q4_0", ""})
        EXPECT_NE(describe(type, {2, 256}, 2, 256).find(type), std::string::npos) << type;
    EXPECT_NE(describe("IQ4_K", {2, 256}, 2, 256).find("IQ4_K"), std::string::npos);
}

TEST(Gguf, FactorsThatAreNoNumbers) {
    std::mt19937 rng(7);
    for (const BlockType& type : block_types()) {
        const std::string name = type.name;
        if (name == "NVFP4") continue;  // has none
        const int64_t k = 3 * type.elements;
        auto bytes = random_blocks(type, 6, rng);
        uint8_t* last = bytes.data() + 5 * type.bytes;
        auto halves = halves_of(name);
        if (name == "MXFP4") last[0] = 255;
        if (name == "IQ1_M") last[53] |= 0xc0, last[55] |= 0x70;
        if (!halves.empty()) last[halves.back() + 1] |= 0x7c;
        const MemoryTensors tensors = one_tensor("m.weight", name, {2, k}, bytes);
        const auto m = make()->describe(test::matrix_source("m", 2, k), tensors);
        const auto read = tensors.reader(*m);
        const auto decode = [&](Interval n, Interval columns) {
            return refused([&] { test::decode_cut(*m, n, columns, read, rng); });
        };
        EXPECT_EQ(decode({0, 1}, {0, k}), "") << name;
        EXPECT_EQ(decode({0, 2}, {1, 2 * type.elements}), "") << name;
        EXPECT_NE(decode({0, 2}, {k - 1, k}).find("m.weight"), std::string::npos) << name;
    }
    MemoryTensors tensors = one_tensor("m.weight", "NVFP4", {1, 64}, std::vector<uint8_t>(36));
    for (const float odd : {std::nanf(""), HUGE_VALF}) {
        tensors.all["m.weight_scale_2"] = test::tensor("F32", {1}, std::vector<float>{odd});
        EXPECT_NE(refused([&] {
                      make()->describe(test::matrix_source("m", 1, 64), tensors);
                  }).find("m.weight_scale_2"),
                  std::string::npos);
    }
}

}  // namespace
}  // namespace conclave::quant
