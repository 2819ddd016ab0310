#include <gtest/gtest.h>

#include "quant/formats/formats.h"
#include "runtime/base/half.h"
#include "tests/quant/formats/memory_tensors.h"

namespace conclave::quant {
namespace {

using nlohmann::json;
using test::MemoryTensors;

/// The order in which a tile's 1024 codes are stored: entry e is 16 k + n % 16 + 256 (n / 16).
std::unique_ptr<QuantizationConfig> marlin_config(int64_t group) {
    return marlin_format().from_config({{"group_size", group > 0 ? group : -1}}, "f");
}

std::vector<int64_t> marlin_order() {
    std::vector<int64_t> raw, order;
    for (int64_t i = 0; i < 32; ++i)
        for (int64_t j = 0; j < 4; ++j)
            for (int64_t b = 0; b < 2; ++b)
                for (const int64_t row :
                     {2 * (i % 4), 2 * (i % 4) + 1, 2 * (i % 4) + 8, 2 * (i % 4) + 9})
                    raw.push_back(16 * row + i / 4 + 8 * b + 256 * j);
    for (size_t at = 0; at < raw.size(); at += 8)
        for (const size_t k : {0, 2, 4, 6, 1, 3, 5, 7}) order.push_back(raw[at + k]);
    return order;
}

struct Sample {
    MemoryTensors tensors;
    std::vector<float> values;  ///< [n, k]
    int64_t n = 0, k = 0;
};

/// `group` 0: one a row.
Sample make_sample(int64_t n, int64_t k, int64_t group, bool awq_names, std::mt19937& rng) {
    Sample s;
    s.n = n, s.k = k;
    std::vector<uint8_t> codes(static_cast<size_t>(n * k));
    for (uint8_t& c : codes) c = rng() % 16;
    const int64_t groups = group ? (k + group - 1) / group : 1;
    std::vector<uint16_t> scales(static_cast<size_t>(groups * n)), stored = scales;
    for (uint16_t& v : scales)
        v = f32_to_f16((rng() % 2 ? 0.01f : -0.01f) * static_cast<float>(1 + rng() % 100));
    const auto order = marlin_order();
    std::vector<uint32_t> words(static_cast<size_t>(k / 16 * 2 * n));
    for (size_t w = 0; w < words.size(); ++w)
        for (int64_t nibble = 0; nibble < 8; ++nibble) {
            const int64_t row = static_cast<int64_t>(w) / (2 * n),
                          e = static_cast<int64_t>(w) % (2 * n) * 8 + nibble,
                          p = order[static_cast<size_t>(e % 1024)], at_k = 16 * row + p % 256 / 16,
                          at_n = e / 1024 * 64 + 16 * (p / 256) + p % 16;
            words[w] |= uint32_t{codes[static_cast<size_t>(at_n * k + at_k)]} << 4 * nibble;
        }
    const int64_t run = groups > 1 ? 64 : 32;
    for (int64_t g = 0; g < groups; ++g)
        for (int64_t c = 0; c < n; ++c) {
            const int64_t i = c % run / 8, j = c % 8;
            const int64_t off[] = {0, 1, 8, 9, 16, 17, 24, 25};
            const int64_t logical = c / run * run + (run == 64 ? i + 8 * j : 2 * i + off[j]);
            stored[static_cast<size_t>(g * n + c)] = scales[static_cast<size_t>(g * n + logical)];
        }
    for (int64_t r = 0; r < n; ++r)
        for (int64_t c = 0; c < k; ++c) {
            const int64_t g = group ? c / group : 0;
            s.values.push_back((codes[static_cast<size_t>(r * k + c)] - 8.0f) *
                                   f16_to_f32(scales[static_cast<size_t>(g * n + r)]) +
                               0.0f);
        }
    s.tensors.all[awq_names ? "m.qweight" : "m.B"] = test::tensor("I32", {k / 16, 2 * n}, words);
    s.tensors.all[awq_names ? "m.scales" : "m.s"] = test::tensor("F16", {groups, n}, stored);
    return s;
}

TEST(Marlin, OrderBeginsAsPublished) {
    const auto order = marlin_order();
    const std::vector<int64_t> head = {0, 128, 8, 136, 16, 144, 24, 152, 256, 384, 264, 392};
    EXPECT_EQ(std::vector<int64_t>(order.begin(), order.begin() + 12), head);
}

TEST(Marlin, AnyCutDecodesAlike) {
    std::mt19937 rng(1);
    for (int i = 0; i < 40; ++i) {
        const int64_t n = 64 * (1 + static_cast<int64_t>(rng() % 4));
        const int64_t k = 16 * (1 + static_cast<int64_t>(rng() % 20));
        const int64_t group = std::array<int64_t, 5>{0, 16, 32, 48, 128}[rng() % 5];
        const Sample s = make_sample(n, k, group, rng() % 2, rng);
        const auto config = marlin_config(group);
        // A part of a fused matrix now and then.
        MatrixSource source = test::matrix_source("m", n, k);
        std::vector<float> values = s.values;
        if (rng() % 2) {
            const Interval rows = test::random_cut(n, rng);
            source.n = rows.size(), source.row_offset = rows.begin;
            values.assign(s.values.begin() + rows.begin * k, s.values.begin() + rows.end * k);
        }
        const auto m = config->describe(source, s.tensors);
        ASSERT_TRUE(m);
        EXPECT_EQ(m->encoding.group, group < k ? group : 0);
        test::expect_cuts(*m, values, s.tensors.reader(*m), 6, rng);
    }
}

TEST(Marlin, ReadsNoMoreThanTheTilesOfACut) {
    std::mt19937 rng(2);
    const Sample s = make_sample(256, 128, 32, false, rng);
    const auto m = marlin_config(32)->describe(test::matrix_source("m", 256, 128), s.tensors);
    const StoredRect codes = m->codec->needs(*m, 0, {70, 130}, {31, 33});
    EXPECT_EQ(codes.rows, (Interval{1, 3}));
    EXPECT_EQ(codes.cols, (Interval{128, 384}));
    const StoredRect scales = m->codec->needs(*m, 1, {70, 130}, {31, 33});
    EXPECT_EQ(scales.rows, (Interval{0, 2}));
    EXPECT_EQ(scales.cols, (Interval{64, 192}));
}

TEST(Marlin, OtherMatricesArePlain) {
    const auto config = marlin_config(128);
    MemoryTensors tensors;
    EXPECT_FALSE(config->describe(test::matrix_source("m", 64, 16), tensors));
    tensors.all["m.weight"] = test::tensor("BF16", {5, 3}, std::vector<uint16_t>(15));
    const auto m = config->describe(test::matrix_source("m", 5, 3), tensors);
    ASSERT_TRUE(m);
    EXPECT_EQ(m->encoding.code, CodeType::kBF16);
}

std::string refusal(const std::function<void()>& f) {
    try {
        f();
    } catch (const Error& e) {
        EXPECT_TRUE(e.code() == ErrorCode::kBadContent || e.code() == ErrorCode::kUnsupported);
        return e.what();
    }
    return "";
}

TEST(Marlin, RefusesWhatItCannotDecode) {
    std::mt19937 rng(3);
    const Sample good = make_sample(64, 32, 16, false, rng);
    const auto describe = [&](const Sample& s, int64_t n, int64_t k) {
        return refusal(
            [&] { marlin_config(16)->describe(test::matrix_source("m", n, k), s.tensors); });
    };
    EXPECT_EQ(describe(good, 64, 32), "");
    EXPECT_NE(describe(good, 60, 32).find("m.B"), std::string::npos);
    EXPECT_NE(describe(good, 64, 24).find("m.B"), std::string::npos);
    EXPECT_NE(describe(good, 128, 32).find("expected [2, 256]"), std::string::npos);
    Sample bad = good;
    bad.tensors.all["m.B"].header.dtype = "F32";
    EXPECT_NE(describe(bad, 64, 32).find("expected I32"), std::string::npos);
    bad = good;
    bad.tensors.all["m.s"].header.dtype = "I32";
    EXPECT_NE(describe(bad, 64, 32).find("m.s"), std::string::npos);
    bad = good;
    bad.tensors.all.erase("m.s");
    EXPECT_NE(describe(bad, 64, 32).find("missing"), std::string::npos);
    bad = good;
    bad.tensors.all["m.qzeros"] = test::tensor("I32", {1}, std::vector<int32_t>(1));
    EXPECT_NE(describe(bad, 64, 32).find("zero points"), std::string::npos);

    const auto from = [&](const json& config) {
        return refusal([&] { marlin_format().from_config(config, "the-file"); });
    };
    EXPECT_EQ(from(json::parse(R"({"group_size": 128, "bits": 4, "sym": true})")), "");
    EXPECT_EQ(from(json::object()), "");
    for (const char* text :
         {R"({"group_size": 0})", R"({"group_size": -2})", R"({"group_size": 1e30})",
          R"({"group_size": "128"})", R"({"q_group_size": []})", R"({"bits": 8})",
          R"({"w_bit": -4})", R"({"bits": true})", R"({"sym": false})", R"({"sym": 1})",
          R"({"group_size": 18446744073709551615})", "[]", "3"})
        EXPECT_NE(from(json::parse(text)).find("the-file"), std::string::npos) << text;
}

TEST(Marlin, ImaginedWeightsAreOfUnitScale) {
    std::mt19937 rng(4);
    const auto config = marlin_config(128);
    const Encoding e{CodeType::kU4, 4, FactorType::kF16, FactorType::kNone, 8, 32, false};
    const StoredMatrix m = imagine(*config, test::matrix_source("m", 64, 256), e);
    const test::ReadRect generate = [&](size_t piece, const StoredRect& rect, std::byte* out,
                                        int64_t row_bytes) {
        for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r)
            m.codec->generate(m, piece, {{r, r + 1}, rect.cols},
                              out + (r - rect.rows.begin) * row_bytes);
    };
    const auto values = test::decode_rows(m, {0, 64}, {0, 256}, generate, rng);
    double square = 0;
    for (const float v : values) square += double{v} * v;
    EXPECT_NEAR(square / 64, 1, 0.1);
    test::expect_cuts(m, values, generate, 5, rng);
    Encoding other = e;
    other.zero = FactorType::kU8;
    EXPECT_THROW(imagine(*config, test::matrix_source("m", 64, 256), other), Error);
    EXPECT_THROW(imagine(*config, test::matrix_source("m", 63, 256), e), Error);
}

}  // namespace
}  // namespace conclave::quant
