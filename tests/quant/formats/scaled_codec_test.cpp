// Float codes with scales in a grid: any cut of any storage against numbers worked out here.
#include "quant/formats/scaled_codec.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/base/half.h"
#include "tests/quant/formats/memory_tensors.h"

namespace conclave::quant {
namespace {

/// The value of a minifloat with `mantissa` bits, no infinities.
float minifloat(int code, int exponent_bits, int mantissa_bits, int bias) {
    const int exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1);
    const int mantissa = code & ((1 << mantissa_bits) - 1);
    const double size = exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                      : std::ldexp(mantissa + (1 << mantissa_bits),
                                                   exponent - bias - mantissa_bits);
    return static_cast<float>(code >> (exponent_bits + mantissa_bits) & 1 ? -size : size);
}

constexpr float kFp4[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

struct Kind {
    const char* name;
    CodeType code;
    CodeStorage storage;
    int bits;
};
constexpr Kind kKinds[] = {{"e4m3", CodeType::kE4M3, CodeStorage::kWhole, 8},
                           {"e3m2", CodeType::kE4M3, CodeStorage::kE3M2, 6},
                           {"e2m3", CodeType::kE4M3, CodeStorage::kE2M3, 6},
                           {"fp4", CodeType::kT4, CodeStorage::kWhole, 4}};

float value_of(const Kind& kind, int code) {
    if (kind.bits == 4) return code & 8 ? -kFp4[code & 7] : kFp4[code & 7];
    if (kind.storage == CodeStorage::kE3M2) return minifloat(code, 3, 2, 3);
    if (kind.storage == CodeStorage::kE2M3) return minifloat(code, 2, 3, 1);
    return minifloat(code, 4, 3, 7);
}

/// A random scale, stored, and what it stands for.
float put_scale(FactorType type, std::byte* to, std::mt19937& rng) {
    const float v = std::ldexp(static_cast<float>(rng() % 255) - 127, -9);
    uint16_t half;
    uint8_t byte;
    switch (type) {
        case FactorType::kF32:
            std::memcpy(to, &v, 4);
            return v;
        case FactorType::kF16:
        case FactorType::kBF16:
            half = type == FactorType::kF16 ? f32_to_f16(v) : f32_to_bf16(v);
            std::memcpy(to, &half, 2);
            return type == FactorType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
        case FactorType::kE4M3:
            byte = static_cast<uint8_t>(rng() & 0xff);
            if ((byte & 127) == 127) byte = 0x80;
            *to = static_cast<std::byte>(byte);
            return minifloat(byte, 4, 3, 7);
        default:
            byte = static_cast<uint8_t>(90 + rng() % 60);
            if (rng() % 50 == 0) byte = 0;
            *to = static_cast<std::byte>(byte);
            return std::ldexp(1.0f, byte - 127);
    }
}

struct Sample {
    StoredMatrix matrix;
    std::vector<std::vector<std::byte>> pieces;
    std::vector<float> values;  ///< of the part, [n, k]
};

Sample random_sample(std::mt19937& rng) {
    const Kind& kind = kKinds[rng() % 4];
    MatrixSource s;
    s.stem = "m";
    s.stored_n = 1 + rng() % 70;
    s.row_offset = rng() % s.stored_n;
    s.n = 1 + rng() % (s.stored_n - s.row_offset);
    s.k = (1 + rng() % 50) * (kind.bits == 8 ? 1 + rng() % 3 : 4);
    if (rng() % 3 == 0) s.lead_count = 1 + rng() % 4, s.lead = rng() % s.lead_count, s.bare = true;
    Encoding e;
    e.code = kind.code;
    if (kind.bits == 4) e.levels = fp4_codebook();
    e.scale = std::array{FactorType::kF32, FactorType::kF16, FactorType::kBF16, FactorType::kE4M3,
                         FactorType::kE8M0}[rng() % 5];
    e.group = rng() % 4 ? 1 + rng() % 60 : 0;
    e.group_rows = rng() % 4;
    if (rng() % 3 == 0) e.group_rows = 1 + rng() % 40;
    Sample x;
    x.matrix = scaled_matrix(s, e, "m.codes", "m.scales", kind.storage);
    if (e.scale == FactorType::kE4M3)
        (rng() % 2 ? x.matrix.global.multiplier : x.matrix.global.divisor) = 0.37f;
    if (rng() % 3 == 0) {
        std::vector<float> columns;
        for (int64_t c = 0; c < s.k; ++c) columns.push_back(0.5f + static_cast<float>(rng() % 99));
        x.matrix.column_scale = std::make_shared<const std::vector<float>>(std::move(columns));
    }
    for (const StoredPiece& p : x.matrix.pieces)
        x.pieces.emplace_back(static_cast<size_t>(p.rows * p.cols * p.element_bytes));
    const int64_t leads = std::max<int64_t>(s.lead_count, 1), rows = leads * s.stored_n;
    std::vector<int> codes;
    for (int64_t i = 0; i < rows * s.k; ++i) {
        int code = static_cast<int>(rng() & ((1u << kind.bits) - 1));
        if (kind.bits == 8 && (code & 127) == 127) code = 0x80;
        codes.push_back(code);
        const auto bit = static_cast<size_t>(i * kind.bits);
        for (int b = 0; b < kind.bits; ++b)
            x.pieces[0][(bit + static_cast<size_t>(b)) / 8] |=
                static_cast<std::byte>((code >> b & 1) << (bit + static_cast<size_t>(b)) % 8);
    }
    const int64_t width = e.group ? ceil_div(s.k, e.group) : 1;
    const int64_t height = e.group_rows ? ceil_div(s.stored_n, e.group_rows) : 1;
    EXPECT_EQ(x.matrix.pieces[1].rows, leads * height);
    EXPECT_EQ(x.matrix.pieces[1].cols, width);
    std::vector<float> scales;
    for (int64_t i = 0; i < leads * height * width; ++i)
        scales.push_back(
            put_scale(e.scale, x.pieces[1].data() + i * x.matrix.pieces[1].element_bytes, rng));
    for (int64_t r = 0; r < s.n; ++r)
        for (int64_t c = 0; c < s.k; ++c) {
            const int64_t lead = std::max<int64_t>(s.lead, 0), row = s.row_offset + r;
            const int64_t grid = lead * height + (e.group_rows ? row / e.group_rows : 0);
            const float scale =
                scales[static_cast<size_t>(grid * width + (e.group ? c / e.group : 0))] *
                x.matrix.global.multiplier / x.matrix.global.divisor;
            float v =
                value_of(kind, codes[static_cast<size_t>((lead * s.stored_n + row) * s.k + c)]);
            v *= scale;
            if (x.matrix.column_scale) v *= (*x.matrix.column_scale)[static_cast<size_t>(c)];
            x.values.push_back(v);
        }
    return x;
}

TEST(ScaledCodec, AnyCutOfAnyStorage) {
    std::mt19937 rng(21);
    for (int round = 0; round < 500; ++round) {
        const Sample x = random_sample(rng);
        const test::ReadRect read = [&](size_t i, const StoredRect& rect, std::byte* out,
                                        int64_t row_bytes) {
            const StoredPiece& p = x.matrix.pieces[i];
            for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r, out += row_bytes)
                std::memcpy(out,
                            x.pieces[i].data() + (r * p.cols + rect.cols.begin) * p.element_bytes,
                            static_cast<size_t>(rect.cols.size() * p.element_bytes));
        };
        SCOPED_TRACE(x.matrix.encoding.to_string() + " round " + std::to_string(round));
        test::expect_cuts(x.matrix, x.values, read, 5, rng);
        if (::testing::Test::HasFatalFailure()) return;
    }
}

TEST(ScaledCodec, NeedsNoMoreThanTheCut) {
    MatrixSource s = test::matrix_source("m", 24, 256);
    s.stored_n = 300, s.row_offset = 120;
    Encoding e;
    e.code = CodeType::kE4M3, e.scale = FactorType::kF32, e.group = e.group_rows = 128;
    const StoredMatrix block = scaled_matrix(s, e, "c", "s");
    EXPECT_EQ(block.pieces[1].rows, 3);
    EXPECT_EQ(block.codec->needs(block, 1, {0, 8}, {0, 128}).rows, (Interval{0, 1}));
    EXPECT_EQ(block.codec->needs(block, 1, {7, 9}, {127, 129}).rows, (Interval{0, 2}));
    EXPECT_EQ(block.codec->needs(block, 1, {7, 9}, {127, 129}).cols, (Interval{0, 2}));
    EXPECT_EQ(block.codec->needs(block, 0, {7, 9}, {127, 129}).cols, (Interval{127, 129}));
    EXPECT_EQ(block.codec->scratch_bytes(block, {0, 2}, {0, 128}), 8u);
    e.code = CodeType::kT4, e.levels = fp4_codebook();
    const StoredMatrix pairs = scaled_matrix(s, e, "c", "s");
    EXPECT_EQ(pairs.codec->needs(pairs, 0, {1, 2}, {3, 6}).cols, (Interval{1, 3}));
    EXPECT_EQ(pairs.codec->needs(pairs, 0, {1, 2}, {3, 6}).rows, (Interval{121, 122}));
    e.code = CodeType::kE4M3, e.levels = nullptr;
    const StoredMatrix six = scaled_matrix(s, e, "c", "s", CodeStorage::kE2M3);
    EXPECT_EQ(six.codec->needs(six, 0, {1, 2}, {3, 5}).cols, (Interval{0, 6}));
}

TEST(ScaledCodec, OddWidthsAreRefused) {
    Encoding e;
    e.code = CodeType::kT4, e.levels = fp4_codebook(), e.scale = FactorType::kE8M0, e.group = 32;
    EXPECT_THROW(scaled_matrix(test::matrix_source("m", 4, 33), e, "c", "s"), Error);
    e.code = CodeType::kE4M3, e.levels = nullptr;
    EXPECT_NO_THROW(scaled_matrix(test::matrix_source("m", 4, 33), e, "c", "s"));
    EXPECT_THROW(scaled_matrix(test::matrix_source("m", 4, 34), e, "c", "s", CodeStorage::kE3M2),
                 Error);
}

// Generated weights do not depend on how they are cut, have a variance of about 1 / k and no NaN.
TEST(ScaledCodec, ImaginedWeights) {
    std::mt19937 rng(3);
    for (const CodeType code : {CodeType::kE4M3, CodeType::kE4M3N, CodeType::kT4})
        for (const FactorType scale : {FactorType::kF32, FactorType::kF16, FactorType::kBF16,
                                       FactorType::kE4M3, FactorType::kE8M0})
            for (const auto& [group, group_rows] :
                 {std::pair{0, 1}, std::pair{32, 1}, std::pair{128, 128}}) {
                Encoding e;
                e.code = code, e.scale = scale, e.group = group, e.group_rows = group_rows;
                if (code == CodeType::kT4) e.levels = fp4_codebook();
                // Small steps of E4M3 are coarse, and few scales are far from their mean.
                const int64_t rows = 512, k = scale == FactorType::kE4M3 ? 120 : 480;
                const auto m = imagined_scaled_matrix(test::matrix_source("up_proj", rows, k), e);
                EXPECT_EQ(m.encoding, e);
                const test::ReadRect made = [&](size_t i, const StoredRect& rect, std::byte* out,
                                                int64_t row_bytes) {
                    for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r, out += row_bytes)
                        m.codec->generate(m, i, {{r, r + 1}, rect.cols}, out);
                };
                const auto all = test::decode_rows(m, {0, rows}, {0, k}, made, rng);
                double sum = 0;
                for (const float v : all) sum += std::pow(v, 2);
                const double bound = group_rows > 1 ? 0.7 : 0.2;
                EXPECT_NEAR(sum / static_cast<double>(rows), 1.0, bound) << e.to_string();
                test::expect_cuts(m, all, made, 2, rng);
            }
}

TEST(ScaledCodec, ShapesOfScales) {
    MatrixSource s = test::matrix_source("m", 200, 96);
    const auto type_of = [&](int64_t group, int64_t group_rows, const std::string& dtype,
                             std::vector<int64_t> shape) {
        test::MemoryTensors tensors;
        tensors.all["s"].header = {dtype, std::move(shape)};
        Encoding e;
        e.group = group, e.group_rows = group_rows;
        try {
            expect_scale_grid(s, tensors, "s", e);
        } catch (const Error& error) {
            EXPECT_NE(std::string(error.what()).find("s"), std::string::npos);
            return FactorType::kNone;
        }
        return e.scale;
    };
    const FactorType refused = FactorType::kNone;
    EXPECT_EQ(type_of(32, 1, "F32", {200, 3}), FactorType::kF32);
    EXPECT_EQ(type_of(64, 1, "F16", {200, 2}), FactorType::kF16);
    EXPECT_EQ(type_of(0, 1, "BF16", {200}), FactorType::kBF16);
    EXPECT_EQ(type_of(0, 1, "BF16", {200, 1}), FactorType::kBF16);
    EXPECT_EQ(type_of(0, 0, "F8_E4M3", {}), FactorType::kE4M3);
    EXPECT_EQ(type_of(0, 0, "F8_E8M0", {1}), FactorType::kE8M0);
    EXPECT_EQ(type_of(0, 0, "U8", {1, 1}), FactorType::kE8M0);
    EXPECT_EQ(type_of(128, 128, "F32", {2, 1}), FactorType::kF32);
    EXPECT_EQ(type_of(128, 128, "F32", {2, 1, 1, 1}), FactorType::kF32);
    EXPECT_EQ(type_of(32, 64, "F32", {4, 1, 3, 1}), FactorType::kF32);
    EXPECT_EQ(type_of(32, 64, "F32", {4, 3, 1, 1}), refused);
    EXPECT_EQ(type_of(32, 1, "F32", {3, 200}), refused);
    EXPECT_EQ(type_of(32, 1, "F32", {200}), refused);
    EXPECT_EQ(type_of(0, 1, "F32", {}), refused);
    EXPECT_EQ(type_of(0, 1, "F32", {1}), refused);
    EXPECT_EQ(type_of(0, 0, "F32", {200}), refused);
    EXPECT_EQ(type_of(128, 128, "F32", {1, 1}), refused);
    EXPECT_EQ(type_of(32, 1, "I8", {200, 3}), refused);
    EXPECT_EQ(type_of(32, 1, "F8_E5M2", {200, 3}), refused);
    EXPECT_EQ(type_of(32, 1, "F32", {200, 3, 1, 1, 1}), refused);
    s.lead = 1, s.lead_count = 7, s.bare = true;
    EXPECT_EQ(type_of(32, 1, "U8", {7, 200, 3}), FactorType::kE8M0);
    EXPECT_EQ(type_of(0, 0, "F32", {7}), FactorType::kF32);
    EXPECT_EQ(type_of(0, 1, "F32", {7, 200}), FactorType::kF32);
    EXPECT_EQ(type_of(128, 128, "F32", {7, 2, 1}), FactorType::kF32);
    EXPECT_EQ(type_of(128, 128, "F32", {14, 1}), refused);
    EXPECT_EQ(type_of(0, 0, "F32", {}), refused);
}

}  // namespace
}  // namespace conclave::quant
