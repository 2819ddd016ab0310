// Options of `conclave plan`.
#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "launch/options.h"

namespace conclave::launch {

/// What plan is told in texts; finish_plan() reads them.
struct PlanText {
    std::string ranks = "1";
    std::vector<std::string> links;
    std::vector<CLI::Option*> measuring;  ///< options that need a link
};

void add_plan(CLI::App& app, Invocation& to, PlanText& text);
void finish_plan(Invocation& to, const PlanText& text);

}  // namespace conclave::launch
