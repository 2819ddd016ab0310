// Cuts of stored matrices against weights that were made without the codec.
#include <gtest/gtest.h>

#include "tests/bitsandbytes/staged.h"

namespace bitsandbytes::test {
namespace {

constexpr int64_t kWidths[] = {1, 3, 32, 33, 64, 65, 96, 127, 128, 192, 200, 257, 640};

TEST(Codec, CutsAreWhatTheDefinitionSays) {
    std::mt19937 rng(17);
    for (uint64_t seed = 0; seed < 64; ++seed)
        for (const int64_t k : kWidths) {
            const int64_t n = 1 + static_cast<int64_t>(rng() % 60);
            const StoredSample s = sample(n, k, seed);
            const MemoryTensors tensors = tensors_of(s);
            const auto m = describe(s.source, tensors, s.config);
            ASSERT_TRUE(m);
            ASSERT_NO_FATAL_FAILURE(
                expect_cut(*m, tensors, s.weights, 0, {0, s.source.n}, {0, s.source.k}, rng));
            for (int cut = 0; cut < 4; ++cut)
                ASSERT_NO_FATAL_FAILURE(expect_cut(*m, tensors, s.weights, 0,
                                                   quant::test::random_cut(s.source.n, rng),
                                                   quant::test::random_cut(s.source.k, rng), rng));
        }
}

TEST(Codec, PartsOfFusedAndStackedTensorsAreFound) {
    std::mt19937 rng(18);
    for (uint64_t seed = 0; seed < 48; ++seed)
        for (const int64_t k : {33, 48, 64, 96, 200}) {
            const int64_t leads = 1 + static_cast<int64_t>(rng() % 5), rows = 2 + rng() % 30;
            const StoredSample s = stacked(sample(leads * rows, k, seed), leads);
            const MemoryTensors tensors = tensors_of(s);
            for (int64_t lead = 0; lead < leads; ++lead) {
                MatrixSource source = s.source;
                source.lead = lead;
                source.row_offset = static_cast<int64_t>(rng()) % (rows - 1);
                source.n = 1 + static_cast<int64_t>(rng()) % (rows - source.row_offset);
                const auto m = describe(source, tensors, s.config);
                ASSERT_TRUE(m);
                const int64_t first = lead * rows + source.row_offset;
                ASSERT_NO_FATAL_FAILURE(
                    expect_cut(*m, tensors, s.weights, first, {0, source.n}, {0, k}, rng));
                ASSERT_NO_FATAL_FAILURE(expect_cut(*m, tensors, s.weights, first,
                                                   quant::test::random_cut(source.n, rng),
                                                   quant::test::random_cut(k, rng), rng));
            }
        }
}

TEST(Codec, CodesMayBeStoredInAWiderType) {
    std::mt19937 rng(19);
    for (const auto& [dtype, width] :
         {std::pair<const char*, int64_t>{"BF16", 2}, {"F16", 2}, {"F32", 4}})
        for (const int64_t k : {64, 96, 7}) {
            const StoredSample s = sample(24, k, 1);
            MemoryTensors tensors = tensors_of(s);
            MemoryTensor& weight = tensors.all.at("layer.weight");
            weight.header = {dtype,
                             {ceil_div(static_cast<int64_t>(weight.bytes.size()), width), 1}};
            weight.bytes.resize(static_cast<size_t>(weight.header.shape[0] * width));
            const auto m = describe(s.source, tensors);
            ASSERT_TRUE(m);
            ASSERT_NO_FATAL_FAILURE(
                expect_cut(*m, tensors, s.weights, 0, {0, 24}, {0, s.source.k}, rng));
        }
}

/// What another rank's matrix is taken for, its small tensors unread.
class HeadersOnly final : public TensorLookup {
  public:
    explicit HeadersOnly(const MemoryTensors& all) : all_(all) {}
    std::optional<TensorHeader> header(const std::string& name) const override {
        return all_.header(name);
    }
    std::vector<std::byte> read(const std::string& name, uint64_t) const override {
        throw Error(ErrorCode::kInternal, "values were asked for").tensor(name);
    }
    bool values() const override { return false; }

  private:
    const MemoryTensors& all_;
};

TEST(Codec, MatricesOfOtherRanksAreDescribedWithoutValues) {
    for (uint64_t seed = 0; seed < 32; ++seed) {
        const StoredSample s = sample(96, 200, seed);
        const MemoryTensors tensors = tensors_of(s);
        const auto m = describe(s.source, tensors, s.config);
        const auto seen = describe(s.source, HeadersOnly(tensors), s.config);
        ASSERT_TRUE(m && seen);
        EXPECT_EQ(seen->encoding.to_string(), m->encoding.to_string());
        EXPECT_EQ(seen->activation, m->activation);
        for (const StoredPiece& p : seen->pieces)
            EXPECT_LE(*sharding::piece_bytes(p), tensors.all.at(p.tensor).bytes.size());
    }
}

TEST(Codec, EveryTensorIsAPieceOrACompanion) {
    for (uint64_t seed = 0; seed < 8; ++seed) {
        const StoredSample s = sample(9, 70, seed);
        const MemoryTensors tensors = tensors_of(s);
        const auto m = describe(s.source, tensors);
        std::vector<std::string> named = m->companions;
        for (const StoredPiece& p : m->pieces) named.push_back(p.tensor);
        std::sort(named.begin(), named.end());
        std::vector<std::string> all;
        for (const auto& [name, t] : tensors.all) all.push_back(name);
        EXPECT_EQ(named, all);
    }
}

TEST(Config, TensorsDecideWhatIsQuantized) {
    MemoryTensors tensors;
    tensors.all["layer.weight"] =
        quant::test::tensor("F32", {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
    const Json config = Json::parse(R"({"load_in_4bit": true, "llm_int8_skip_modules": []})");
    const auto m = describe(quant::test::matrix_source("layer", 2, 3), tensors, config);
    ASSERT_TRUE(m);
    EXPECT_EQ(m->encoding.code, CodeType::kF32);
    EXPECT_FALSE(describe(quant::test::matrix_source("other", 2, 3), tensors, config));
}

TEST(Config, TheThresholdMakesTheRule) {
    const StoredSample s = sample(8, 40, 3);
    const MemoryTensors tensors = tensors_of(s);
    const auto rule = [&](const char* config) {
        return *describe(s.source, tensors, Json::parse(config))->activation;
    };
    EXPECT_EQ(rule("{}").outlier, 6);
    EXPECT_TRUE(rule("{}").batch);
    EXPECT_EQ(rule("{}").to_string(), "int8 per token, outliers f32");
    EXPECT_EQ(rule(R"({"llm_int8_threshold": 4.5})").outlier, 4.5f);
    EXPECT_EQ(rule(R"({"llm_int8_threshold": 0})").outlier, 0);
    EXPECT_FALSE(rule(R"({"llm_int8_threshold": 0.0})").batch);
    EXPECT_EQ(rule(R"({"llm_int8_threshold": 0})").to_string(), "int8 per token");
    for (const char* bad : {R"({"llm_int8_threshold": -1})", R"({"llm_int8_threshold": "6"})",
                            R"({"llm_int8_threshold": 1e39})"})
        EXPECT_THROW(rule(bad), Error) << bad;
}

TEST(Config, ClaimsConfigsWithoutAMethod) {
    for (const char* ours : {R"({"load_in_4bit": true})", R"({"_load_in_8bit": true})"})
        EXPECT_TRUE(claims(Json::parse(ours))) << ours;
    for (const char* not_ours :
         {"{}", "[]", "3", "null", R"({"load_in_4bit": false})", R"({"load_in_8bit": 1})",
          R"({"load_in_4bit": true, "quant_method": "hqq"})"})
        EXPECT_FALSE(claims(Json::parse(not_ours))) << not_ours;
}

}  // namespace
}  // namespace bitsandbytes::test
