// Standard error, shared by the ranks of this process: notices, the progress bar, figures, errors.
// Standard output belongs to the command's result alone.
#pragma once
#include <chrono>
#include <mutex>
#include <string>
#include <string_view>

#include "launch/progress.h"
#include "runtime/api/conclave.hpp"

namespace conclave::launch {

class Console {
  public:
    explicit Console(bool verbose);

    void line(std::string_view text);
    /// Rank 0 says what matters; other ranks only warnings, with their number (all: verbose).
    void log(int rank, LogLevel level, std::string_view message);
    void progress(const LoadProgress& p) { progress(progress_of(p), p.done); }
    void progress(const Progress& progress, bool done);
    /// "conclave: error: ..."
    static void error(std::string_view what);

  private:
    void write(std::string_view text);  // with mutex_ held

    const bool verbose_, terminal_;
    std::mutex mutex_;
    ProgressSteps steps_;
    std::chrono::steady_clock::time_point last_bar_{};
    bool bar_shown_ = false;
};

/// Writes `text` to standard output at once. Throws kResource when it cannot be written.
void print(std::string_view text);

}  // namespace conclave::launch
