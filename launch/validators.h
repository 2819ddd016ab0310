// Checks of option values, which say what they want.
#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace conclave::launch {

constexpr int64_t kMaxTokens = int64_t{1} << 40;

/// Unlike CLI::Range this refuses NaN and says what it wants.
CLI::Validator in_range(double least, double most, const std::string& wanted);
CLI::Validator at_least(int64_t least, int64_t most = kMaxTokens);
/// CLI11 lets -1 and 2^64 through.
CLI::Validator seed();
CLI::Validator one_of(std::vector<std::string> words);

}  // namespace conclave::launch
