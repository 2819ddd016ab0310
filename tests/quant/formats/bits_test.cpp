#include "quant/formats/bits.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "tests/quant/formats/packer.h"

namespace conclave::quant {
namespace {

std::vector<uint8_t> unpack_all(Packing packing, int bits, const std::vector<uint32_t>& words,
                                int64_t count) {
    std::vector<uint8_t> out(static_cast<size_t>(count), 0xee);
    unpack(packing, bits, reinterpret_cast<const std::byte*>(words.data()), 4, 0, 0, count,
           reinterpret_cast<std::byte*>(out.data()), 1);
    return out;
}

const std::vector<uint8_t> kNibbles = {3, 15, 0, 8, 1, 9, 4, 7};

std::vector<uint8_t> counting() {
    std::vector<uint8_t> v;
    for (int i = 0; i < 32; ++i) v.push_back(static_cast<uint8_t>(i % 8));
    return v;
}

TEST(Bits, WordsOfTheFormats) {
    EXPECT_EQ(unpack_all(Packing::kStream, 4, {0x749180F3}, 8), kNibbles);
    EXPECT_EQ(unpack_all(Packing::kAwq, 4, {0x798F4103}, 8), kNibbles);
    EXPECT_EQ(unpack_all(Packing::kStream, 3, {0x88FAC688, 0xC688FAC6, 0xFAC688FA}, 32),
              counting());
    EXPECT_EQ(
        unpack_all(Packing::kPerWord, 3, {0x08FAC688, 0x1A23EB1A, 0x2C688FAC, 0x0000003E}, 32),
        counting());
    EXPECT_EQ(unpack_all(Packing::kPlanar, 3, {0xE4E4E4E4, 0xE4E4E4E4, 0xF0F0F0F0}, 32),
              counting());
}

TEST(Bits, WordCounts) {
    EXPECT_EQ(packed_words(Packing::kStream, 3, 32), 3);
    EXPECT_EQ(packed_words(Packing::kStream, 3, 33), 4);
    EXPECT_EQ(packed_words(Packing::kPerWord, 3, 32), 4);
    EXPECT_EQ(packed_words(Packing::kPlanar, 5, 33), 10);
    EXPECT_EQ(packed_words(Packing::kAwq, 4, 9), 2);
    EXPECT_EQ(packed_words(Packing::kPlanar, 4, 9), 2);
    EXPECT_EQ(packed_words(Packing::kStream, 7, 0), 0);
}

// Random codes, any range, word and code strides: the words outside words_of() are out of reach.
TEST(Bits, AnyRangeOfAnyPacking) {
    std::mt19937 rng(5);
    for (int round = 0; round < 3000; ++round) {
        const Packing packing = std::array{Packing::kStream, Packing::kPerWord, Packing::kPlanar,
                                           Packing::kAwq}[rng() % 4];
        const int bits = packing == Packing::kAwq ? 4 : 1 + static_cast<int>(rng() % 8);
        const int64_t count = 1 + rng() % 150;
        std::vector<uint8_t> codes(static_cast<size_t>(count));
        for (uint8_t& c : codes) c = static_cast<uint8_t>(rng() & ((1u << bits) - 1));
        const std::vector<uint32_t> words = test::pack(packing, bits, codes, rng);
        ASSERT_EQ(static_cast<int64_t>(words.size()), packed_words(packing, bits, count));

        const int64_t begin = rng() % (count + 1), end = begin + rng() % (count - begin + 1);
        const WordRange range = words_of(packing, bits, begin, end);
        const int64_t word_step = 4 + rng() % 7, out_step = rng() % 2 ? 1 : 1 + rng() % 5;
        // Exactly the words that may be read, so that a sanitizer sees a read beyond.
        std::vector<std::byte> staged(
            static_cast<size_t>(std::max<int64_t>(0, range.end - range.begin - 1) * word_step +
                                (range.end > range.begin ? 4 : 0)));
        for (int64_t w = range.begin; w < range.end; ++w)
            std::memcpy(staged.data() + (w - range.begin) * word_step,
                        &words[static_cast<size_t>(w)], 4);
        std::vector<uint8_t> out(static_cast<size_t>((end - begin) * out_step + 8), 0xee);
        unpack(packing, bits, staged.data(), word_step, range.begin, begin, end,
               reinterpret_cast<std::byte*>(out.data()), out_step);
        for (int64_t i = 0; i < static_cast<int64_t>(out.size()); ++i) {
            const bool code = i % out_step == 0 && i / out_step < end - begin;
            ASSERT_EQ(out[static_cast<size_t>(i)],
                      code ? codes[static_cast<size_t>(begin + i / out_step)] : 0xee)
                << bits << " bits, packing " << static_cast<int>(packing) << ", " << i;
        }
    }
}

}  // namespace
}  // namespace conclave::quant
