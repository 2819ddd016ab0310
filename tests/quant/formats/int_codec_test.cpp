#include "quant/formats/int_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "runtime/base/half.h"
#include "tests/quant/formats/packer.h"
#include "tests/quant/formats/staging.h"

namespace conclave::quant {
namespace {

using test::Decoded;

/// A matrix in some storage, and what it stands for.
struct Sample {
    IntStorage storage;
    StoredMatrix matrix;
    std::vector<std::vector<std::byte>> pieces;  ///< contents of matrix.pieces
    std::vector<uint8_t> codes;                  ///< [stored n, k]
    std::vector<float> scales, zeros;            ///< [stored n, groups]
    int64_t groups = 0;
};

void put(std::vector<std::byte>& piece, int64_t at, const void* from, size_t bytes) {
    std::memcpy(piece.data() + at * static_cast<int64_t>(bytes), from, bytes);
}

/// Lines of codes packed into words: line l, word w goes to words [w, l] or [l, w].
void put_lines(std::vector<std::byte>& piece, const IntStorage& s, bool words_first, int64_t lines,
               int64_t length, const std::function<uint8_t(int64_t line, int64_t i)>& code,
               const std::function<uint32_t(uint32_t word, int64_t w)>& change, std::mt19937& rng) {
    for (int64_t l = 0; l < lines; ++l) {
        std::vector<uint8_t> line;
        for (int64_t i = 0; i < length; ++i) line.push_back(code(l, i));
        const auto words = test::pack(s.packing, s.bits, line, rng);
        const auto count = static_cast<int64_t>(words.size());
        for (int64_t w = 0; w < count; ++w) {
            const uint32_t word = change(words[static_cast<size_t>(w)], w);
            put(piece, words_first ? w * lines + l : l * count + w, &word, 4);
        }
    }
}

IntStorage random_storage(std::mt19937& rng) {
    IntStorage s;
    s.bits = 2 + static_cast<int>(rng() % 7);
    s.bytes = rng() % 6 == 0;
    s.packing = std::array{Packing::kStream, Packing::kPerWord, Packing::kPlanar}[rng() % 3];
    s.words_along_n = rng() % 3 == 0;
    if (s.words_along_n && rng() % 2) s.packing = Packing::kAwq;
    if (s.packing == Packing::kAwq || rng() % 3 == 0) s.bits = 4;
    s.transposed = s.words_along_n || rng() % 2;
    s.scales_transposed = rng() % 2;
    s.zero_rule =
        std::array{ZeroRule::kAsStored, ZeroRule::kPlusOne, ZeroRule::kWordsAdd}[rng() % 3];
    s.zero_word_count = rng() % 2 ? 3 : 1;
    for (uint32_t& w : s.zero_words) w = static_cast<uint32_t>(rng());
    s.row_pairs = s.bytes && rng() % 2;
    if (s.row_pairs) s.bits = 4;
    s.is_signed = !s.bytes && s.zero_rule == ZeroRule::kAsStored && rng() % 2;
    return s;
}

void fill_codes(Sample& x, std::mt19937& rng) {
    const IntStorage& s = x.storage;
    const int64_t n = x.matrix.source.stored_n, k = x.matrix.source.k;
    const uint32_t half = 1u << (s.bits - 1);
    const auto same = [](uint32_t w, int64_t) { return w; };
    x.codes.resize(static_cast<size_t>(n * k));
    for (uint8_t& c : x.codes) c = static_cast<uint8_t>(rng() & (2 * half - 1));
    const uint32_t sign = s.is_signed ? half : 0;
    const auto code = [&](int64_t row, int64_t column) {
        return static_cast<uint8_t>(x.codes[static_cast<size_t>(row * k + column)] ^ sign);
    };
    if (s.row_pairs) {
        for (int64_t r = 0; r < n; r += 2)
            for (int64_t c = 0; c < k; ++c)
                x.pieces[0][static_cast<size_t>(r / 2 * k + c)] = static_cast<std::byte>(
                    ((code(r, c) - 8) & 15) | ((code(r + 1, c) - 8) & 15) << 4);
    } else if (s.bytes) {
        for (size_t i = 0; i < x.codes.size(); ++i)
            x.pieces[0][i] = static_cast<std::byte>(x.codes[i] - half);
    } else if (s.words_along_n) {
        put_lines(
            x.pieces[0], s, false, k, n, [&](int64_t l, int64_t i) { return code(i, l); }, same,
            rng);
    } else {
        put_lines(x.pieces[0], s, s.transposed, n, k, code, same, rng);
    }
}

void fill_factors(Sample& x, std::mt19937& rng) {
    const IntStorage& s = x.storage;
    const Encoding& e = x.matrix.encoding;
    const int64_t n = x.matrix.source.stored_n, groups = x.groups;
    const bool shared = e.group_rows == 0;
    const uint32_t half = 1u << (s.bits - 1), mask = 2 * half - 1;
    const auto at = [&](int64_t row, int64_t g) {
        return shared ? g : s.scales_transposed ? g * n + row : row * groups + g;
    };
    for (int64_t row = 0; row < n; ++row)
        for (int64_t g = 0; g < groups; ++g) {
            if (shared && row > 0) {
                x.scales.push_back(x.scales[static_cast<size_t>(g)]);
                x.zeros.push_back(x.zeros[static_cast<size_t>(g)]);
                continue;
            }
            const float v = std::ldexp(static_cast<float>(static_cast<int>(rng() % 255) - 127), -9);
            const uint16_t h = e.scale == FactorType::kF16 ? f32_to_f16(v) : f32_to_bf16(v);
            if (e.scale == FactorType::kF32)
                put(x.pieces[1], at(row, g), &v, 4);
            else
                put(x.pieces[1], at(row, g), &h, 2);
            x.scales.push_back(v);
            x.zeros.push_back(static_cast<float>(
                e.zero == FactorType::kNone ? e.zero_point : static_cast<int>(rng() & mask)));
        }
    if (e.zero == FactorType::kNone) return;
    const auto zero = [&](int64_t g, int64_t row) {
        return static_cast<uint32_t>(x.zeros[static_cast<size_t>(row * groups + g)]);
    };
    if (s.bytes) {
        for (int64_t row = 0; row < n; ++row)
            for (int64_t g = 0; g < groups; ++g)
                x.pieces[2][static_cast<size_t>(at(row, g))] =
                    static_cast<std::byte>(zero(g, row) - half);
        return;
    }
    put_lines(
        x.pieces[2], s, !s.scales_transposed, groups, n,
        [&](int64_t g, int64_t row) {
            const uint32_t less = s.zero_rule == ZeroRule::kPlusOne ? 1 : 0;
            return static_cast<uint8_t>(((zero(g, row) - less) & mask) ^ (s.is_signed ? half : 0));
        },
        [&](uint32_t word, int64_t w) {
            return s.zero_rule == ZeroRule::kWordsAdd
                       ? word - s.zero_words[static_cast<size_t>(w % s.zero_word_count)]
                       : word;
        },
        rng);
}

Sample random_sample(std::mt19937& rng) {
    Sample x;
    x.storage = random_storage(rng);
    MatrixSource source;
    source.stem = "m";
    source.stored_n = 1 + rng() % (rng() % 4 ? 40 : 300);
    if (x.storage.row_pairs) source.stored_n += source.stored_n % 2;
    source.row_offset = rng() % source.stored_n;
    source.n = 1 + rng() % (source.stored_n - source.row_offset);
    source.k = 1 + rng() % 200;
    Encoding e;
    e.bits = x.storage.bits;
    e.code = e.bits <= 4 ? CodeType::kU4 : CodeType::kU8;
    e.scale = std::array{FactorType::kF32, FactorType::kF16, FactorType::kBF16}[rng() % 3];
    e.zero = rng() % 2 ? FactorType::kU8 : FactorType::kNone;
    e.zero_point = 1 << (e.bits - 1);
    e.group = rng() % 4 ? 1 + rng() % 70 : 0;
    e.permuted = rng() % 4 == 0;
    const bool may_share =
        !x.storage.scales_transposed && (e.zero == FactorType::kNone || x.storage.bytes);
    e.group_rows = may_share && rng() % 2 ? 0 : 1;
    x.groups = group_count(source.k, e.group);
    x.matrix = int_matrix(source, e, x.storage, {".q", ".s", ".z"});
    if (e.permuted) {
        std::vector<int32_t> of;
        for (int64_t c = 0; c < source.k; ++c) of.push_back(static_cast<int32_t>(rng() % x.groups));
        x.matrix.group_of = std::make_shared<const std::vector<int32_t>>(of);
    }
    for (const StoredPiece& p : x.matrix.pieces)
        x.pieces.emplace_back(static_cast<size_t>(p.rows * p.cols * p.element_bytes),
                              std::byte{0x5a});
    fill_codes(x, rng);
    fill_factors(x, rng);
    return x;
}

test::ReadRect reader(const Sample& x) {
    return [&x](size_t i, const StoredRect& rect, std::byte* out, int64_t row_bytes) {
        const StoredPiece& p = x.matrix.pieces[i];
        for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r, out += row_bytes)
            if (!rect.cols.empty())
                std::memcpy(out,
                            x.pieces[i].data() + (r * p.cols + rect.cols.begin) * p.element_bytes,
                            static_cast<size_t>(rect.cols.size() * p.element_bytes));
    };
}

Interval random_interval(int64_t extent, std::mt19937& rng) {
    const int64_t begin = rng() % (extent + 1);
    return rng() % 5 == 0
               ? Interval{0, extent}
               : Interval{begin, begin + static_cast<int64_t>(rng() % (extent - begin + 1))};
}

TEST(IntCodec, AnyCutOfAnyStorage) {
    std::mt19937 rng(11);
    for (int round = 0; round < 1500; ++round) {
        const Sample x = random_sample(rng);
        const MatrixSource& s = x.matrix.source;
        for (int cut = 0; cut < 4; ++cut) {
            const Interval n = random_interval(s.n, rng), k = random_interval(s.k, rng);
            const Decoded d = test::decode_cut(x.matrix, n, k, reader(x), rng);
            size_t i = 0;
            for (int64_t r = n.begin; r < n.end; ++r)
                for (int64_t c = k.begin; c < k.end; ++c, ++i) {
                    const auto row = static_cast<size_t>(s.row_offset + r);
                    const size_t factor = row * static_cast<size_t>(x.groups) +
                                          static_cast<size_t>(test::group_of(x.matrix, c));
                    const std::string where = x.matrix.encoding.to_string() + " round " +
                                              std::to_string(round) + " (" + std::to_string(r) +
                                              ", " + std::to_string(c) + ") of " + n.to_string() +
                                              k.to_string();
                    ASSERT_EQ(d.codes[i],
                              x.codes[row * static_cast<size_t>(s.k) + static_cast<size_t>(c)])
                        << where;
                    ASSERT_EQ(d.scales[i], x.scales[factor]) << where;
                    ASSERT_EQ(d.zeros[i], x.zeros[factor]) << where;
                }
        }
    }
}

// Only the groups that a cut touches are asked for, and all of them under act-order.
TEST(IntCodec, NeedsNoMoreThanTheCut) {
    IntStorage storage;
    storage.transposed = storage.scales_transposed = true;
    MatrixSource source;
    source.stem = "m";
    source.n = 24, source.stored_n = 64, source.row_offset = 40, source.k = 256;
    Encoding e{CodeType::kU4, 4, FactorType::kF16, FactorType::kU8, 0, 32, false};
    StoredMatrix m = int_matrix(source, e, storage, {".q", ".s", ".z"});
    const Interval n{3, 7}, k{65, 97};
    EXPECT_EQ(m.codec->needs(m, 0, n, k).rows, (Interval{8, 13}));
    EXPECT_EQ(m.codec->needs(m, 0, n, k).cols, (Interval{43, 47}));
    EXPECT_EQ(m.codec->needs(m, 1, n, k).rows, (Interval{2, 4}));
    EXPECT_EQ(m.codec->needs(m, 1, n, k).cols, (Interval{43, 47}));
    EXPECT_EQ(m.codec->needs(m, 2, n, k).rows, (Interval{2, 4}));
    EXPECT_EQ(m.codec->needs(m, 2, n, k).cols, (Interval{5, 6}));
    m.group_of = std::make_shared<const std::vector<int32_t>>(256, 3);
    EXPECT_EQ(m.codec->needs(m, 1, n, k).rows, (Interval{0, 8}));
}

TEST(IntCodec, RowsPerReadMakesCutsOfFourKiB) {
    MatrixSource source;
    source.stem = "m";
    source.n = source.stored_n = 100000, source.k = 64;
    for (int bits = 2; bits <= 8; ++bits) {
        Encoding e{CodeType::kU8, bits, FactorType::kF16, FactorType::kNone, 0, 0, false};
        IntStorage s;
        s.bits = bits;
        const auto cut = [&] {
            const StoredMatrix m = int_matrix(source, e, s, {".q", ".s", ".z"});
            const int64_t rows = m.codec->rows_per_read(m);
            return m.codec->needs(m, 0, {0, rows}, {0, 64}).cols.size() * 4;
        };
        s.transposed = true;
        EXPECT_EQ(cut(), 4096);
        s.words_along_n = true;
        EXPECT_GE(cut(), 4096);
        EXPECT_LE(cut(), 4100);
    }
}

// Generated weights do not depend on how they are cut, and have a variance of about 1 / k.
TEST(IntCodec, ImaginedWeights) {
    std::mt19937 rng(3);
    for (const FactorType zero :
         {FactorType::kNone, FactorType::kU8, FactorType::kF16, FactorType::kBF16})
        for (const int bits : {2, 3, 4, 5, 8}) {
            MatrixSource source;
            source.stem = "layer.up_proj";
            source.n = source.stored_n = 64, source.k = 480;
            const Encoding e{bits <= 4 ? CodeType::kU4 : CodeType::kU8,
                             bits,
                             FactorType::kF16,
                             zero,
                             zero == FactorType::kNone ? 1 << (bits - 1) : 0,
                             bits == 5 ? 0 : 64,
                             bits == 3};
            const StoredMatrix m = imagined_int_matrix(source, e);
            EXPECT_EQ(m.encoding, e);
            const test::ReadRect made = [&](size_t i, const StoredRect& rect, std::byte* out,
                                            int64_t row_bytes) {
                const StoredPiece& p = m.pieces[i];
                for (int64_t r = rect.rows.begin; r < rect.rows.end; ++r, out += row_bytes)
                    m.codec->generate(m, i, {{r, r + 1}, rect.cols}, out);
                EXPECT_EQ(p.indexer, "");
            };
            const Decoded all = test::decode_cut(m, {0, 64}, {0, 480}, made, rng);
            double sum = 0;
            for (int64_t i = 0; i < 64 * 480; ++i) sum += std::pow(all.value(i), 2);
            EXPECT_NEAR(sum / 64, 1.0, 0.1) << e.to_string();
            const Decoded cut = test::decode_cut(m, {7, 50}, {33, 401}, made, rng);
            for (int64_t r = 0; r < cut.rows; ++r)
                for (int64_t c = 0; c < cut.cols; ++c)
                    ASSERT_EQ(cut.value(r * cut.cols + c), all.value((r + 7) * 480 + c + 33));
        }
}

}  // namespace
}  // namespace conclave::quant
