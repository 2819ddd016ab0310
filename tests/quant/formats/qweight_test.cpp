// GPTQ, AWQ and AutoRound: what configs and tensors mean, and which are refused.
#include <gtest/gtest.h>

#include "quant/formats/formats.h"
#include "runtime/base/json.h"
#include "tests/quant/formats/memory_tensors.h"

namespace conclave::quant {
namespace {

using test::MemoryTensors;

constexpr const char* kFile = "dir/config.json";
constexpr const char* kStem = "model.layers.3.mlp.experts.7.up_proj";

std::unique_ptr<QuantizationConfig> make(const std::string& config) {
    const Json j = Json::parse(config);
    const QuantizationRegistry registry = QuantizationRegistry::built_in();
    return registry.find(j.value("quant_method", "gptq"))->from_config(j, kFile);
}

/// GPTQ's tensors of an [n, k] matrix; zero words are `zeros`, repeated.
void add_gptq(MemoryTensors& t, const std::string& stem, int64_t n, int64_t k, int bits,
              int64_t groups, const std::vector<uint32_t>& zeros = {0x77777777}) {
    std::mt19937 rng(1);
    std::vector<uint32_t> words(static_cast<size_t>(k * bits / 32 * n));
    for (uint32_t& w : words) w = static_cast<uint32_t>(rng());
    t.all[stem + ".qweight"] = test::tensor("I32", {k * bits / 32, n}, words);
    t.all[stem + ".scales"] = test::tensor(
        "F16", {groups, n}, std::vector<uint16_t>(static_cast<size_t>(groups * n), 0x3c00));
    words.clear();
    const int64_t each = n * bits / 32;
    for (int64_t i = 0; i < groups * each; ++i)
        words.push_back(zeros[static_cast<size_t>(i % each) % zeros.size()]);
    t.all[stem + ".qzeros"] = test::tensor("I32", {groups, each}, words);
}

void add_group_index(MemoryTensors& t, const std::vector<int32_t>& index) {
    t.all[std::string(kStem) + ".g_idx"] =
        test::tensor("I32", {static_cast<int64_t>(index.size())}, index);
}

MemoryTensors gptq(int64_t n, int64_t k, int bits, int64_t groups,
                   const std::vector<uint32_t>& zeros = {0x77777777}) {
    MemoryTensors t;
    add_gptq(t, kStem, n, k, bits, groups, zeros);
    return t;
}

StoredMatrix describe(const std::string& config, const MemoryTensors& t, int64_t n, int64_t k) {
    const auto m = make(config)->describe(test::matrix_source(kStem, n, k), t);
    EXPECT_TRUE(m);
    return m ? *m : StoredMatrix{};
}

/// Zeros of the rows of column 0.
std::vector<int> zeros_of(const std::string& config, const MemoryTensors& t, int64_t n, int64_t k) {
    std::mt19937 rng(2);
    const StoredMatrix m = describe(config, t, n, k);
    if (m.encoding.zero == FactorType::kNone)
        return std::vector<int>(static_cast<size_t>(n), m.encoding.zero_point);
    const test::Decoded d = test::decode_cut(m, {0, n}, {0, 1}, t.reader(m), rng);
    return {d.zeros.begin(), d.zeros.end()};
}

template <class Call>
std::string error_of(Call call, ErrorCode code) {
    try {
        call();
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), code) << e.what();
        return e.what();
    }
    ADD_FAILURE() << "no error";
    return "";
}

void expect_names(const std::string& text, const std::vector<std::string>& parts) {
    for (const std::string& p : parts)
        EXPECT_NE(text.find(p), std::string::npos) << p << " in: " << text;
}

const std::string kModelMeta = R"("meta":{"quantizer":["gptqmodel:5.6.12"]})";

TEST(Gptq, ZeroConventions) {
    const std::string asym = R"({"bits":4,"group_size":32,"sym":false)";
    const std::vector<int> eights(8, 8);
    EXPECT_EQ(zeros_of(asym + "}", gptq(8, 64, 4, 2), 8, 64), eights);
    const MemoryTensors second = gptq(8, 64, 4, 2, {0x88888888});
    EXPECT_EQ(zeros_of(asym + R"(,"checkpoint_format":"gptq_v2"})", second, 8, 64), eights);
    EXPECT_EQ(zeros_of(asym + R"(,"format":"gptq_p"})", second, 8, 64), eights);
    // A borrow between fields: words are added where words were subtracted.
    const MemoryTensors borrow = gptq(8, 64, 4, 2, {0x7777776F});
    EXPECT_EQ(zeros_of(asym + "," + kModelMeta + "}", borrow, 8, 64),
              (std::vector<int>{0, 8, 8, 8, 8, 8, 8, 8}));
    EXPECT_EQ(zeros_of(asym + "}", borrow, 8, 64), (std::vector<int>{0, 7, 8, 8, 8, 8, 8, 8}));
    // Symmetric: whatever is stored, and it is a companion.
    const StoredMatrix sym = describe(R"({"bits":4,"group_size":32})", borrow, 8, 64);
    EXPECT_EQ(sym.encoding.zero, FactorType::kNone);
    EXPECT_EQ(sym.encoding.zero_point, 8);
    EXPECT_EQ(sym.companions, std::vector<std::string>{std::string(kStem) + ".qzeros"});
}

TEST(Gptq, ZeroWordsOfThreeBitsAndOfTheBase) {
    const std::string asym = R"({"bits":3,"group_size":32,"sym":false)";
    const std::vector<int> fours(32, 4);
    EXPECT_EQ(
        zeros_of(asym + "}", gptq(32, 64, 3, 2, {0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D}), 32, 64),
        fours);
    EXPECT_EQ(zeros_of(asym + "," + kModelMeta + "}",
                       gptq(32, 64, 3, 2, {0x00000000, 0xB6DB6DB7, 0x49249249}), 32, 64),
              fours);
    const MemoryTensors planar = gptq(32, 64, 3, 2, {0x00000000, 0x00000000, 0xFFFFFFFF});
    EXPECT_EQ(zeros_of(asym + R"(,"format":"gptq_p"})", planar, 32, 64), fours);
    // Five bits are planar whatever the label says.
    const MemoryTensors five = gptq(32, 64, 5, 2, {0, 0, 0, 0, 0xFFFFFFFF});
    EXPECT_EQ(zeros_of(R"({"bits":5,"group_size":32,"sym":false})", five, 32, 64),
              std::vector<int>(32, 16));
    const std::string eight_of_four =
        R"({"bits":4,"group_size":32,"sym":false,"dynamic":{"+:.*up_proj":{"bits":8}},)";
    EXPECT_EQ(zeros_of(eight_of_four + kModelMeta + "}", gptq(4, 64, 8, 2, {0x6F6F6F6F}), 4, 64),
              std::vector<int>(4, 128));
}

TEST(Gptq, Encodings) {
    const StoredMatrix four =
        describe(R"({"w_bit":4,"q_group_size":32})", gptq(16, 96, 4, 3), 16, 96);
    EXPECT_EQ(four.encoding,
              (Encoding{CodeType::kU4, 4, FactorType::kF16, FactorType::kNone, 8, 32, false}));
    const StoredMatrix channel =
        describe(R"({"wbits":8,"group_size":-1,"desc_act":true})", gptq(16, 96, 8, 1), 16, 96);
    EXPECT_EQ(channel.encoding,
              (Encoding{CodeType::kU8, 8, FactorType::kF16, FactorType::kNone, 128, 0, false}));
    // A group that spans K is one group; a last group may be short.
    EXPECT_EQ(describe(R"({"bits":4,"group_size":128})", gptq(16, 96, 4, 1), 16, 96).encoding.group,
              0);
    EXPECT_EQ(describe(R"({"bits":4,"group_size":64})", gptq(16, 96, 4, 2), 16, 96).encoding.group,
              64);
    MemoryTensors wide = gptq(16, 96, 4, 3);
    for (const char* type : {"F32", "BF16"}) {
        wide.all[std::string(kStem) + ".scales"].header.dtype = type;
        EXPECT_EQ(describe(R"({"bits":4,"group_size":32})", wide, 16, 96).encoding.scale,
                  type == std::string("F32") ? FactorType::kF32 : FactorType::kBF16);
    }
}

TEST(Gptq, DynamicRulesMatchFromTheStart) {
    const std::string base = R"({"bits":4,"group_size":32,"dynamic":)";
    const MemoryTensors eight = gptq(16, 96, 8, 3);
    for (const char* rule : {R"("+:.*up_proj")", R"("model\\.layers\\.3")", R"("+:.*\\.mlp\\.")"})
        EXPECT_EQ(describe(base + "{" + rule + R"(:{"bits":8}}})", eight, 16, 96).encoding.bits, 8)
            << rule;
    for (const char* rule : {R"("up_proj")", R"("+:layers")", R"("model$")"}) {
        const std::string what =
            error_of([&] { describe(base + "{" + rule + R"(:{"bits":8}}})", eight, 16, 96); },
                     ErrorCode::kBadContent);
        expect_names(what, {"up_proj.qweight", "[12, 16]", "[24, 16]"});
    }
    // A rule that skips yields to the tensor, where that is packed as the others are.
    const MemoryTensors four = gptq(16, 96, 4, 3);
    const std::string skip = base + R"({"-:.*up_proj":{}}})";
    EXPECT_EQ(describe(skip, four, 16, 96).encoding.bits, 4);
    expect_names(error_of([&] { describe(skip, eight, 16, 96); }, ErrorCode::kBadContent),
                 {".*up_proj", "up_proj.qweight", "4 bits", "[24, 16]"});
    // Two that match: the shapes decide.
    const std::string two =
        base + R"({".*up_proj":{"bits":8},"model.*":{"group_size":48},"-:.*":{}}})";
    EXPECT_EQ(describe(two, eight, 16, 96).encoding.bits, 8);
    EXPECT_EQ(describe(two, gptq(16, 96, 4, 2), 16, 96).encoding.group, 48);
    error_of([&] { describe(two, four, 16, 96); }, ErrorCode::kBadContent);
    const std::string tie = base + R"({".*up_proj":{"sym":false},"model.*":{"sym":true}}})";
    expect_names(error_of([&] { describe(tie, four, 16, 96); }, ErrorCode::kBadContent),
                 {".*up_proj", "model.*", "contradict"});
}

TEST(Gptq, GroupIndex) {
    const std::string config = R"({"bits":4,"group_size":32,"desc_act":true})";
    MemoryTensors t = gptq(8, 96, 4, 3);
    std::vector<int32_t> index(96);
    for (int i = 0; i < 96; ++i) index[static_cast<size_t>(i)] = i / 32;
    add_group_index(t, index);
    const StoredMatrix plain = describe(config, t, 8, 96);
    EXPECT_FALSE(plain.group_of);
    EXPECT_FALSE(plain.encoding.permuted);
    EXPECT_EQ(plain.companions.size(), 2u);
    std::reverse(index.begin(), index.end());
    add_group_index(t, index);
    // The file is trusted, whatever desc_act says.
    for (const char* act : {"true", "false"}) {
        const StoredMatrix m =
            describe(std::string(R"({"bits":4,"group_size":32,"desc_act":)") + act + "}", t, 8, 96);
        ASSERT_TRUE(m.group_of);
        EXPECT_EQ(*m.group_of, index);
        EXPECT_TRUE(m.encoding.permuted);
    }
    for (const int32_t wrong : {3, -1, INT32_MAX, INT32_MIN}) {
        index[17] = wrong;
        add_group_index(t, index);
        expect_names(error_of([&] { describe(config, t, 8, 96); }, ErrorCode::kBadContent),
                     {"up_proj.g_idx", "column 17", "[0, 3)", std::to_string(wrong)});
    }
    index.resize(95);
    add_group_index(t, index);
    expect_names(error_of([&] { describe(config, t, 8, 96); }, ErrorCode::kBadContent),
                 {"up_proj.g_idx", "96", "95"});
    MemoryTensors one = gptq(8, 96, 4, 1);
    add_group_index(one, std::vector<int32_t>(96, 0));
    EXPECT_FALSE(describe(R"({"bits":4,"group_size":-1,"desc_act":true})", one, 8, 96).group_of);
}

TEST(Gptq, PartsOfAFusedMatrix) {
    const MemoryTensors t = gptq(24, 64, 4, 2, {0x76543210, 0xfedcba98, 0x01234567});
    const auto format = make(R"({"bits":4,"group_size":32,"sym":false})");
    std::mt19937 rng(4);
    const auto whole = format->describe(test::matrix_source(kStem, 24, 64), t);
    const auto all = test::decode_rows(*whole, {0, 24}, {0, 64}, t.reader(*whole), rng);
    for (const auto& [offset, n] : {std::pair{0, 7}, {7, 9}, {16, 8}}) {
        MatrixSource part = test::matrix_source(kStem, n, 64);
        part.stored_n = 24, part.row_offset = offset;
        const auto m = format->describe(part, t);
        const std::vector<float> want(all.begin() + offset * 64, all.begin() + (offset + n) * 64);
        test::expect_cuts(*m, want, t.reader(*m), 20, rng);
    }
}

TEST(Gptq, WrongTensors) {
    const std::string config = R"({"bits":4,"group_size":32,"sym":false})";
    const auto with = [&](const std::string& suffix, auto change, ErrorCode code) {
        MemoryTensors t = gptq(16, 96, 4, 3);
        change(t.all[kStem + suffix].header);
        expect_names(error_of([&] { describe(config, t, 16, 96); }, code), {kStem + suffix});
    };
    const auto shape = [](std::vector<int64_t> s) { return [s](TensorHeader& h) { h.shape = s; }; };
    const auto type = [](const char* name) { return [name](TensorHeader& h) { h.dtype = name; }; };
    for (const char* suffix : {".qweight", ".scales", ".qzeros"})
        for (const auto& s : std::vector<std::vector<int64_t>>{
                 {}, {0}, {3}, {16, 12}, {12, 17}, {11, 16}, {-3, 16}, {1, 3, 16}, {INT64_MAX, 16}})
            with(suffix, shape(s), ErrorCode::kBadContent);
    with(".scales", shape({4, 16}), ErrorCode::kBadContent);
    with(".scales", type("F64"), ErrorCode::kUnsupported);
    with(".scales", type("I32"), ErrorCode::kUnsupported);
    with(".qweight", type("I64"), ErrorCode::kUnsupported);
    with(".qzeros", type("F32"), ErrorCode::kUnsupported);
    for (const char* suffix : {".scales", ".qzeros"}) {
        MemoryTensors t = gptq(16, 96, 4, 3);
        t.all.erase(kStem + std::string(suffix));
        expect_names(error_of([&] { describe(config, t, 16, 96); }, ErrorCode::kBadContent),
                     {kStem + std::string(suffix), "missing"});
    }
}

TEST(Qweight, FloatsAndStacksAreLeftAlone) {
    for (
        const char* config :
        {R"({"bits":4,"group_size":32})", R"({"quant_method":"awq","bits":4,"group_size":32})",
         R"({"quant_method":"auto-round","extra_config":{"model.layers.3.mlp.gate":{"bits":16}}})"}) {
        const auto format = make(config);
        MemoryTensors t;
        EXPECT_FALSE(format->describe(test::matrix_source(kStem, 4, 8), t));
        t.all[std::string(kStem) + ".weight"] =
            test::tensor("BF16", {4, 8}, std::vector<uint16_t>(32, 0x3f80));
        const auto m = format->describe(test::matrix_source(kStem, 4, 8), t);
        ASSERT_TRUE(m);
        EXPECT_EQ(m->encoding.code, CodeType::kBF16);
        MatrixSource stack = test::matrix_source("model.layers.3.mlp.experts.up_proj", 4, 8);
        stack.bare = true, stack.lead = 1, stack.lead_count = 2;
        EXPECT_FALSE(format->describe(stack, t));
        const Encoding e{CodeType::kU4, 4, FactorType::kF16, FactorType::kU8, 0, 32, false};
        EXPECT_EQ(imagine(*format, test::matrix_source(kStem, 4, 8), e).encoding, e);
        EXPECT_EQ(imagine(*format, test::matrix_source(kStem, 4, 8), {}).encoding.code,
                  CodeType::kF32);
        EXPECT_EQ(format->supported_activations().size(), 4u);
    }
}

MemoryTensors awq(bool zeros) {
    MemoryTensors t;
    std::vector<uint32_t> words(64, 0x798F4103);
    t.all[std::string(kStem) + ".qweight"] = test::tensor("I32", {64, 1}, words);
    t.all[std::string(kStem) + ".scales"] =
        test::tensor("F16", {2, 8}, std::vector<uint16_t>(16, 0x3c00));
    if (zeros)
        t.all[std::string(kStem) + ".qzeros"] =
            test::tensor("I32", {2, 1}, std::vector<uint32_t>{0x798F4103, 0x88888888});
    return t;
}

TEST(Awq, CodesAndZeros) {
    const std::vector<uint8_t> columns = {3, 15, 0, 8, 1, 9, 4, 7};
    std::mt19937 rng(3);
    const MemoryTensors t = awq(true);
    const StoredMatrix m =
        describe(R"({"quant_method":"awq","w_bit":4,"q_group_size":32})", t, 8, 64);
    const test::Decoded d = test::decode_cut(m, {0, 8}, {31, 33}, t.reader(m), rng);
    for (size_t n = 0; n < 8; ++n) {
        EXPECT_EQ(d.codes[2 * n], columns[n]);
        EXPECT_EQ(d.zeros[2 * n], columns[n]);
        EXPECT_EQ(d.zeros[2 * n + 1], 8);
    }
    const std::string config = R"({"quant_method":"awq","bits":4,"group_size":32)";
    expect_names(
        error_of([&] { describe(config + "}", awq(false), 8, 64); }, ErrorCode::kBadContent),
        {"up_proj.qzeros", "missing"});
    for (const char* version : {"GEMM", "exllama", "ipex"}) {
        const std::string sym = config + R"(,"zero_point":false,"version":")" + version + "\"}";
        EXPECT_EQ(describe(sym, awq(false), 8, 64).encoding.zero_point, 8);
        EXPECT_EQ(describe(sym, awq(true), 8, 64).encoding.zero, FactorType::kU8);
    }
}

TEST(AutoRound, PackingFormats) {
    const auto config = [](const std::string& packing, const std::string& more) {
        return R"({"quant_method":"auto-round","group_size":32,"packing_format":")" + packing +
               "\"" + more + "}";
    };
    const MemoryTensors first = gptq(8, 64, 4, 2), second = gptq(8, 64, 4, 2, {0x88888888});
    const std::string asym = R"(,"sym":false)";
    const std::vector<int> eights(8, 8);
    EXPECT_EQ(zeros_of(config("auto_round:auto_gptq", asym), first, 8, 64), eights);
    EXPECT_EQ(zeros_of(config("auto_round", asym), second, 8, 64), eights);
    EXPECT_EQ(zeros_of(config("auto_round:gptqmodel", asym), second, 8, 64), eights);
    EXPECT_EQ(zeros_of(R"({"quant_method":"inc","group_size":32,"sym":false})", first, 8, 64),
              eights);
    EXPECT_EQ(describe(config("auto_round:auto_awq", asym), awq(true), 8, 64).encoding.zero,
              FactorType::kU8);
    EXPECT_EQ(describe(config("auto_round:auto_awq", ""), awq(false), 8, 64).encoding.zero_point,
              8);
    EXPECT_EQ(describe(R"({"quant_method":"intel/auto-round"})", gptq(8, 256, 4, 2), 8, 256)
                  .encoding.group,
              128);
}

TEST(AutoRound, ExtraConfig) {
    const auto bits = [](const std::string& extra, int stored) {
        return describe(
                   R"({"quant_method":"auto-round","group_size":32,"extra_config":)" + extra + "}",
                   gptq(16, 96, stored, 3), 16, 96)
            .encoding.bits;
    };
    const std::string exact = std::string("\"") + kStem + "\"";
    EXPECT_EQ(bits("{" + exact + R"(:{"bits":8,"data_type":"int","other":1}})", 8), 8);
    // Patterns are searched for anywhere; an exact name beats them.
    EXPECT_EQ(bits(R"({"experts\\..*up":{"bits":8}})", 8), 8);
    EXPECT_EQ(bits("{" + exact + R"(:{"bits":2},".*up_proj.*":{"bits":8}})", 2), 2);
    // A name without pattern characters is no pattern.
    error_of([&] { bits(R"({"up_proj":{"bits":8}})", 8); }, ErrorCode::kBadContent);
    EXPECT_EQ(bits("{" + exact + R"(:{"bits":16,"data_type":"fp"}})", 4), 4);
    expect_names(
        error_of([&] { bits("{" + exact + R"(:{"bits":16}})", 8); }, ErrorCode::kBadContent),
        {kStem, "extra_config", "[24, 16]"});
}

}  // namespace
}  // namespace conclave::quant
