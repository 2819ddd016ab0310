// What an element of a GGUF block stands for, element by element as the types are defined.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include "runtime/base/half.h"

namespace conclave::quant::test {

#include "quant/formats/gguf_grids.inc"

/// Bytes of one block.
class GgufBlock {
  public:
    GgufBlock(std::string type, const uint8_t* bytes) : type_(std::move(type)), b_(bytes) {}

    /// The number of element e, f32.
    float value(int e) const {
        if (type_ == "IQ4_NL") return f16(0) * iq4(e / 16 ? b_[2 + e % 16] >> 4 : b_[2 + e] & 15);
        if (type_ == "MXFP4")
            return e2m1(e / 16 ? b_[1 + e % 16] >> 4 : b_[1 + e] & 15) *
                   std::ldexp(1.0f, b_[0] - 127);
        if (type_ == "NVFP4") return nvfp4(e);
        if (type_ == "Q1_0") return b_[2 + e / 8] >> e % 8 & 1 ? f16(0) : -f16(0);
        if (type_ == "IQ4_XS") return iq4_xs(e);
        if (type_.starts_with("IQ1")) return iq1(e);
        if (type_.starts_with("IQ")) return iq23(e);
        if (type_ == "Q4_1" || type_ == "Q5_1") return f16(0) * float(legacy(e)) + f16(2);
        if (type_ == "Q2_K") {
            const int both = b_[e / 16];
            return f16(80) * float(both & 15) * float(two_bits(16, e)) - f16(82) * float(both >> 4);
        }
        if (type_ == "Q4_K" || type_ == "Q5_K") {
            const int j = e / 32, q = b_[(type_ == "Q4_K" ? 16 : 48) + e / 64 * 32 + e % 32];
            const int fifth = type_ == "Q5_K" ? b_[16 + e % 32] >> j & 1 : 0;
            const uint8_t* s = b_ + 4;
            const int sc = j < 4 ? s[j] % 64 : s[j + 4] % 16 + s[j - 4] / 64 * 16;
            const int mn = j < 4 ? s[j + 4] % 64 : s[j + 4] / 16 + s[j] / 64 * 16;
            const int code = (j % 2 ? q >> 4 : q & 15) + 16 * fifth;
            return f16(0) * float(sc) * float(code) - f16(2) * float(mn);
        }
        return scale(e) * float(symmetric(e));
    }

  private:
    float f16(int at) const { return f16_to_f32(uint16_t(b_[at] | b_[at + 1] << 8)); }
    uint32_t u16(int at) const { return b_[at] | uint32_t{b_[at + 1]} << 8; }
    uint32_t u32(int at) const { return u16(at) | u16(at + 2) << 16; }

    static float e2m1(int code) {
        static const float kValues[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
        const float v = kValues[code & 7];
        return code & 8 && v > 0 ? -v : v;
    }
    static float iq4(int code) {
        static const float kValues[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                        1,    13,   25,  38,  53,  69,  89,  113};
        return kValues[code];
    }
    int two_bits(int at, int e) const {
        return b_[at + 32 * (e / 128) + e % 32] >> 2 * (e % 128 / 32) & 3;
    }
    /// Codes of blocks of 32 but Q8_0.
    int legacy(int e) const {
        const bool five = type_[1] == '5', minimum = type_[3] == '1';
        const int qh = minimum ? 4 : 2, qs = qh + (five ? 4 : 0);
        const int q = e < 16 ? b_[qs + e] & 15 : b_[qs + e - 16] >> 4;
        return five ? q | int(u32(qh) >> e & 1) << 4 : q;
    }
    /// Code less zero point.
    int symmetric(int e) const {
        if (type_ == "Q4_0") return legacy(e) - 8;
        if (type_ == "Q5_0") return legacy(e) - 16;
        if (type_ == "Q8_0") return int8_t(b_[2 + e]);
        if (type_ == "Q3_K") return two_bits(32, e) - (b_[e % 32] >> e / 32 & 1 ? 0 : 4);
        if (type_ == "Q6_K") {
            const int h = e / 128, g = e % 128 / 32, l = e % 32;
            const int low = b_[64 * h + 32 * (g % 2) + l] >> (g < 2 ? 0 : 4) & 15;
            return low + 16 * (b_[128 + 32 * h + l] >> 2 * g & 3) - 32;
        }
        if (type_ == "TQ2_0") return two_bits(0, e) - 1;
        if (type_ == "Q2_0") return (b_[2 + e / 4] >> 2 * (e % 4) & 3) - 1;
        // TQ1_0: n-major over 32, 16 and 4 bytes.
        const int byte = e < 160 ? e % 32 : e < 240 ? 32 + (e - 160) % 16 : 48 + (e - 240) % 4;
        const int n = e < 160 ? e / 32 : e < 240 ? (e - 160) / 16 : (e - 240) / 4;
        int power = 1;
        for (int i = 0; i < n; ++i) power *= 3;
        return (b_[byte] * power % 256 * 3 >> 8) - 1;
    }
    float scale(int e) const {
        if (type_ == "TQ1_0") return f16(52);
        if (type_ == "TQ2_0") return f16(64);
        if (type_ == "Q6_K") return f16(208) * float(int8_t(b_[192 + e / 16]));
        if (type_ == "Q3_K") {
            const int i = e / 16;
            const int low = i < 8 ? b_[96 + i] % 16 : b_[96 + i - 8] / 16;
            return f16(108) * float(low + 16 * (b_[104 + i % 4] >> 2 * (i / 4) & 3) - 32);
        }
        return f16(0);
    }
    float nvfp4(int e) const {
        const int s = e / 16, j = e % 16, byte = b_[4 + 8 * s + j % 8], code = b_[s] & 127;
        const int exponent = code >> 3, mantissa = code & 7;
        float scale = exponent ? std::ldexp(8.0f + float(mantissa), exponent - 10)
                               : std::ldexp(float(mantissa), -9);
        if (code == 127) scale = 0;
        return e2m1(j < 8 ? byte & 15 : byte >> 4) * scale;
    }
    float iq4_xs(int e) const {
        const int i = e / 32, l = e % 32;
        const int s = (b_[4 + i / 2] >> 4 * (i % 2) & 15) | int(u16(2) >> 2 * i & 3) << 4;
        const int byte = b_[8 + 16 * i + l % 16];
        return f16(0) * float(s - 32) * iq4(l < 16 ? byte & 15 : byte >> 4);
    }
    static bool even(uint32_t seven, int j) {
        return j < 7 ? seven >> j & 1 : std::popcount(seven & 127) % 2;
    }
    float iq23(int e) const {
        static const float kTwo[] = {8, 25, 43}, kThree[] = {4, 12, 20, 28, 36, 44, 52, 62};
        const int i = e / 32, v = e / 8, l = v % 4, j = e % 8;
        const bool three = type_[2] == '3', upper = j >= 4;
        const int q = 2 * v + upper;  // of an index of 4 elements
        bool negative = false;
        float db = 0, level = 0;
        if (type_ == "IQ2_XXS" || type_ == "IQ3_XXS") {
            const uint32_t a = u32(three ? 66 + 4 * i : 6 + 8 * i);
            negative = even(a >> 7 * l & 127, j);
            db = f16(0) * (0.5f + float(a >> 28)) * (three ? 0.5f : 0.25f);
            level = three ? kThree[kIq3xxsGrid[b_[2 + q]] >> 3 * (j % 4) & 7]
                          : kTwo[kIq2xxsGrid[b_[2 + 8 * i + l]] >> 2 * j & 3];
        } else if (type_ == "IQ2_XS" || type_ == "IQ2_S") {
            const bool xs = type_ == "IQ2_XS";
            const uint32_t word = u16(2 + 2 * v);
            const int n = b_[(xs ? 66 : 74) + i] >> (l < 2 ? 0 : 4) & 15;
            negative = xs ? even(word >> 9, j) : b_[34 + v] >> j & 1;
            db = f16(0) * (0.5f + float(n)) * 0.25f;
            const int index = b_[2 + v] | (b_[66 + i] >> 2 * l & 3) << 8;
            level = kTwo[(xs ? kIq2xsGrid[word & 511] : kIq2sGrid[index]) >> 2 * j & 3];
        } else {
            negative = b_[74 + v] >> j & 1;
            db = f16(0) * float(1 + 2 * (b_[106 + i / 2] >> 4 * (i % 2) & 15));
            const int index = b_[2 + q] | (b_[66 + i] >> (2 * l + upper) & 1) << 8;
            level = float(1 + 2 * (kIq3sGrid[index] >> 3 * (j % 4) & 7));
        }
        return db * level * (negative ? -1.0f : 1.0f);
    }
    float iq1(int e) const {
        const int i = e / 32, v = e / 8, l = v % 4, j = e % 8;
        float d = 0;
        int index = 0, s = 0;
        bool negative = false;
        if (type_ == "IQ1_S") {
            const uint32_t qh = u16(34 + 2 * i);
            d = f16(0), s = qh >> 12 & 7, negative = qh >> 15;
            index = b_[2 + v] | (qh >> 3 * l & 7) << 8;
        } else {
            const int nibble = b_[32 + v / 2] >> 4 * (v % 2) & 15;
            uint32_t half = 0;
            for (int w = 0; w < 4; ++w) half |= (u16(48 + 2 * w) >> 12) << 4 * w;
            d = f16_to_f32(uint16_t(half));
            s = u16(48 + 2 * (i / 2)) >> (6 * (i % 2) + 3 * (l / 2)) & 7;
            index = b_[v] | (nibble & 7) << 8, negative = nibble & 8;
        }
        const int entry = kIq1Grid[index] >> 2 * j & 3;
        return d * float(2 * s + 1) * (float(entry - 1) + (negative ? -0.125f : 0.125f));
    }

    std::string type_;
    const uint8_t* b_;
};

}  // namespace conclave::quant::test
