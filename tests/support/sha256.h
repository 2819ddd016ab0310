// SHA-256, to compare decoded weights with the hashes that a format's own tool wrote.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace conclave::testing {

namespace sha256_detail {

/// The first 32 bits of the fractional part of the cube (`root` 3) or square (2) root of a prime.
inline uint32_t root_bits(uint64_t prime, int root) {
    // The largest x with x^root <= prime * 2^(32 root), by bisection in 128 bits.
    unsigned __int128 low = 0, high = static_cast<unsigned __int128>(1) << 37;
    while (high - low > 1) {
        const unsigned __int128 x = (low + high) / 2;
        // x^3 < 2^111; prime * 2^96 < 2^105.
        const bool below = root == 2 ? x * x <= static_cast<unsigned __int128>(prime) << 64
                                     : x * x * x <= static_cast<unsigned __int128>(prime) << 96;
        (below ? low : high) = x;
    }
    return static_cast<uint32_t>(low);
}

struct Constants {
    std::array<uint32_t, 64> round{};
    std::array<uint32_t, 8> start{};
    Constants() {
        size_t found = 0;
        for (uint64_t p = 2; found < 64; ++p) {
            bool prime = true;
            for (uint64_t d = 2; d * d <= p; ++d) prime = prime && p % d != 0;
            if (!prime) continue;
            if (found < 8) start[found] = root_bits(p, 2);
            round[found++] = root_bits(p, 3);
        }
    }
};

}  // namespace sha256_detail

/// Lower-case hexadecimal.
inline std::string sha256(std::string_view bytes) {
    static const sha256_detail::Constants constants;
    std::string tail(bytes.substr(bytes.size() / 64 * 64));
    tail += '\x80';
    while (tail.size() % 64 != 56) tail += '\0';
    for (int shift = 56; shift >= 0; shift -= 8)
        tail += static_cast<char>(uint64_t{bytes.size()} * 8 >> shift & 0xff);
    auto state = constants.start;
    const auto block = [&](const char* in) {
        std::array<uint32_t, 64> w;
        for (size_t i = 0; i < 64; ++i) {
            if (i < 16) {
                w[i] = 0;
                for (size_t j = 0; j < 4; ++j)
                    w[i] = w[i] << 8 | static_cast<unsigned char>(in[4 * i + j]);
                continue;
            }
            const uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ a >> 3) + w[i - 7] +
                   (std::rotr(b, 17) ^ std::rotr(b, 19) ^ b >> 10);
        }
        auto v = state;
        for (size_t i = 0; i < 64; ++i) {
            const uint32_t a = v[0], e = v[4];
            const uint32_t t1 = v[7] + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) +
                                ((e & v[5]) ^ (~e & v[6])) + constants.round[i] + w[i];
            const uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) +
                                ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
            v = {t1 + t2, a, v[1], v[2], v[3] + t1, e, v[5], v[6]};
        }
        for (size_t i = 0; i < 8; ++i) state[i] += v[i];
    };
    for (size_t at = 0; at + 64 <= bytes.size(); at += 64) block(bytes.data() + at);
    for (size_t at = 0; at < tail.size(); at += 64) block(tail.data() + at);
    std::string hex;
    for (const uint32_t word : state)
        for (int shift = 28; shift >= 0; shift -= 4) hex += "0123456789abcdef"[word >> shift & 15];
    return hex;
}

}  // namespace conclave::testing
