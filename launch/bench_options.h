// Options of `conclave bench`.
#pragma once
#include <CLI/CLI.hpp>

#include "launch/options.h"

namespace conclave::launch {

/// What --threads is where it is not given.
constexpr const char* kThreadsDefault = "CPUs it may use / ranks sharing them";

void add_bench(CLI::App& app, BenchOptions& to);

}  // namespace conclave::launch
