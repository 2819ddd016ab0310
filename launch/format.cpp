#include "launch/format.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <cmath>

namespace conclave::launch {
namespace {

constexpr std::array kByteUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

size_t byte_unit(double bytes) {
    size_t unit = 0;
    // 1023.95 would print as 1024.0 of the smaller unit.
    while (bytes >= 1023.95 && unit + 1 < kByteUnits.size()) {
        bytes /= 1024;
        ++unit;
    }
    return unit;
}

}  // namespace

std::string human_bytes(double bytes, int digits) {
    const size_t unit = byte_unit(bytes);
    return fmt::format("{:.{}f} {}", bytes / std::pow(1024, unit), unit == 0 ? 0 : digits,
                       kByteUnits[unit]);
}

std::string human_bytes_of(double part, double whole) {
    const size_t unit = byte_unit(whole);
    return fmt::format("{:.{}f} of {}", part / std::pow(1024, unit), unit == 0 ? 0 : 1,
                       human_bytes(whole));
}

std::string human_count(double count) {
    static constexpr std::array kUnits = {"", " K", " M", " B", " T"};
    size_t unit = 0;
    while (count >= 999.95 && unit + 1 < kUnits.size()) {
        count /= 1000;
        ++unit;
    }
    return fmt::format("{:.{}f}{}", count, unit == 0 ? 0 : 1, kUnits[unit]);
}

std::string human_duration(double seconds) {
    const auto whole = static_cast<int64_t>(std::ceil(seconds));
    if (whole < 60) return fmt::format("{} s", whole);
    if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
    return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

std::string terminal_safe(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t i = 0; i < text.size(); ++i) {
        const auto c = static_cast<unsigned char>(text[i]);
        if (c == '\n' || c == '\r' || c == '\t') {
            out += ' ';
        } else if (c < 0x20 || c == 0x7f) {
            out += '?';
        } else if (c == 0xc2 && i + 1 < text.size() &&
                   static_cast<unsigned char>(text[i + 1]) < 0xa0) {
            out += '?';  // U+0080 to U+009F: control characters too
            ++i;
        } else {
            out += static_cast<char>(c);
        }
    }
    return out;
}

}  // namespace conclave::launch
