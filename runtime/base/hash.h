// FNV-1a, 64 bits: for comparing what ranks see, not against an adversary.
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace conclave {

class Hasher {
  public:
    Hasher& add(std::span<const std::byte> bytes) {
        for (const std::byte b : bytes) add_byte(static_cast<uint8_t>(b));
        return *this;
    }
    /// Eight bytes, low first, whatever the type: equal numbers hash alike.
    template <std::integral T>
    Hasher& add(T value) {
        const auto wide = static_cast<uint64_t>(value);
        for (int shift = 0; shift < 64; shift += 8) add_byte(static_cast<uint8_t>(wide >> shift));
        return *this;
    }
    /// Length and contents, so that ("ab", "c") and ("a", "bc") differ.
    Hasher& add(std::string_view text) {
        add(text.size());
        return add(std::as_bytes(std::span(text.data(), text.size())));
    }
    uint64_t value() const { return state_; }

  private:
    void add_byte(uint8_t b) { state_ = (state_ ^ b) * 0x100000001b3u; }

    uint64_t state_ = 0xcbf29ce484222325u;
};

}  // namespace conclave
