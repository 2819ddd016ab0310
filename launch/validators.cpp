#include "launch/validators.h"

#include <charconv>
#include <utility>

namespace conclave::launch {

CLI::Validator in_range(double least, double most, const std::string& wanted) {
    return CLI::Validator(
        [=](std::string& value) -> std::string {
            double number = 0;
            if (CLI::detail::lexical_cast(value, number) && number >= least && number <= most)
                return {};
            return "must be " + wanted + ", not " + value;
        },
        "");
}

CLI::Validator at_least(int64_t least, int64_t most) {
    return in_range(static_cast<double>(least), static_cast<double>(most),
                    most == kMaxTokens ? "a whole number, at least " + std::to_string(least)
                                       : "a whole number from " + std::to_string(least) + " to " +
                                             std::to_string(most));
}

CLI::Validator seed() {
    return CLI::Validator(
        [](std::string& value) -> std::string {
            uint64_t number = 0;
            const char* const end = value.data() + value.size();
            const auto [next, failure] = std::from_chars(value.data(), end, number);
            if (failure == std::errc() && next == end) return {};
            return "must be a whole number from 0 to 18446744073709551615, not " + value;
        },
        "");
}

CLI::Validator one_of(std::vector<std::string> words) {
    std::string list;
    for (const auto& word : words) list += (list.empty() ? "" : ", ") + word;
    return CLI::Validator(
        [words = std::move(words), list](std::string& value) -> std::string {
            for (const auto& word : words)
                if (value == word) return {};
            return "must be one of " + list + ", not " + value;
        },
        "");
}

}  // namespace conclave::launch
