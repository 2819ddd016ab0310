// The printable character that stands for each byte in ByteLevel vocabularies: itself where it is
// visible in Latin-1, else the next of U+0100, U+0101 ...
#pragma once
#include <array>
#include <cstdint>

namespace conclave::engine {

constexpr bool is_visible_latin1(unsigned byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

inline constexpr std::array<char32_t, 256> kCharOfByte = [] {
    std::array<char32_t, 256> table{};
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
        table[byte] = is_visible_latin1(byte) ? char32_t{byte} : next++;
    }
    return table;
}();

/// By code point below U+0144; -1: no byte's character.
inline constexpr std::array<int16_t, 0x144> kByteOfChar = [] {
    std::array<int16_t, 0x144> table{};
    for (auto& byte : table) byte = -1;
    for (unsigned byte = 0; byte < 256; ++byte) {
        table[kCharOfByte[byte]] = static_cast<int16_t>(byte);
    }
    return table;
}();

}  // namespace conclave::engine
