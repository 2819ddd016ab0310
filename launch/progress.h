// How loading is shown: a bar on a terminal, a line per 10 % elsewhere, one last line for both.
#pragma once
#include <optional>
#include <string>

#include "runtime/api/conclave.hpp"

namespace conclave::launch {

/// "loading [####------]  42 %  17.7 of 42.1 GiB  1.35 GiB/s  18 s left"; at most 79 columns.
std::string progress_bar(const LoadProgress& progress);

/// Says when the next 10 % are reached.
class ProgressSteps {
  public:
    std::optional<std::string> line(const LoadProgress& progress);

  private:
    int next_ = 10;  // percent
};

/// "loaded 42.1 GiB in 31.2 s (1.35 GiB/s, 8 ranks)"
std::string loaded_line(const LoadReport& report);

}  // namespace conclave::launch
