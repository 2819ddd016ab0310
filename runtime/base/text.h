// Text of hostile origin, made fit for messages.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace conclave {

/// `text` with everything but printable ASCII written as \xNN, cut after `max_bytes` (then "...").
std::string printable(std::string_view text, size_t max_bytes = 120);

/// The same, in double quotes.
std::string in_quotes(std::string_view text, size_t max_bytes = 120);

}  // namespace conclave
