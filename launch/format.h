// Numbers and foreign strings as people read them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace conclave::launch {

/// "42.1 GiB"; `digits` after the point, none for plain bytes.
std::string human_bytes(double bytes, int digits = 1);
/// "17.7 of 42.1 GiB"
std::string human_bytes_of(double part, double whole);
/// "7.6 M"
std::string human_count(double count);
/// "18 s", "3 min 20 s"
std::string human_duration(double seconds);
/// `text` from a file or a peer, safe for a terminal: control characters become '?', line breaks
/// and tabs become spaces.
std::string terminal_safe(std::string_view text);

}  // namespace conclave::launch
