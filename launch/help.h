// What --help says besides the options.
#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <string>

namespace conclave::launch {

/// Prints grouped options with their default and environment variable, at most 100 columns wide.
std::shared_ptr<CLI::FormatterBase> help_formatter(std::string usage);

extern const char* const kHelpFooter;         ///< of `conclave --help`
extern const char* const kRunHelpFooter;      ///< of `conclave run --help`
extern const char* const kInspectHelpFooter;  ///< ...
extern const char* const kPlanHelpFooter;
extern const char* const kVerifyHelpFooter;
extern const char* const kPerplexityHelpFooter;
extern const char* const kBenchHelpFooter;
extern const char* const kDequantizeHelpFooter;
extern const char* const kPluginsHelpFooter;
extern const char* const kDoctorHelpFooter;

}  // namespace conclave::launch
