// How far work is: a bar on a terminal, a line per 10 % elsewhere; after loading one last line.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "runtime/api/conclave.hpp"

namespace conclave::launch {

/// How far anything is.
struct Progress {
    std::string what;  ///< "loading"
    int percent = 0;
    std::string figures;  ///< "17.7 of 42.1 GiB  1.35 GiB/s  18 s left"
};

Progress progress_of(const LoadProgress& progress);
/// "scoring", "1280 of 3072 tokens  512.0 tokens/s  4 s left"
Progress progress_of_tokens(const char* what, int64_t tokens, int64_t total, double seconds);

/// "loading [####------]  42 %  17.7 of 42.1 GiB  1.35 GiB/s  18 s left"; at most 79 columns.
std::string progress_bar(const Progress& progress);
inline std::string progress_bar(const LoadProgress& p) { return progress_bar(progress_of(p)); }

/// Says when the next 10 % are reached.
class ProgressSteps {
  public:
    std::optional<std::string> line(const Progress& progress);
    std::optional<std::string> line(const LoadProgress& p) { return line(progress_of(p)); }

  private:
    std::string what_;
    int next_ = 10;  // percent
};

/// "loaded 42.1 GiB in 31.2 s (1.35 GiB/s, 8 ranks)"
std::string loaded_line(const LoadReport& report);

}  // namespace conclave::launch
