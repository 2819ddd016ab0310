// Options of `conclave conform`.
#pragma once
#include <CLI/CLI.hpp>

#include "launch/options.h"

namespace conclave::launch {

void add_conform(CLI::App& app, Invocation& to);

extern const char* const kConformHelpFooter;

}  // namespace conclave::launch
