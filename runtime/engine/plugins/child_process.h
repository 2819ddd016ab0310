// Runs what may crash or never end in a process of its own.
#pragma once
#include <functional>
#include <string>

namespace conclave::engine {

struct ChildResult {
    bool finished = false;  ///< `work` returned or threw
    int signal = 0;         ///< that ended it; 0: none
    int exit_code = 0;      ///< where it ended itself before `work` had returned
    bool timed_out = false;
    std::string lost;     ///< why it is not known how it ended; empty: it is
    double seconds = 0;   ///< that it was given
    int cpu_seconds = 0;  ///< of the CPU; 0: any
    std::string output;   ///< what `work` returned
    std::string error;    ///< what() of what it threw; empty: it returned
    /// "ended with signal 4 (Illegal instruction)", "did not end within 10 s of the CPU", "did not
    /// end within 60 s", "called exit(3)", "ended, how is not known (SIGCHLD is ignored)"; empty
    /// where finished.
    std::string fate() const;
};

/// Forks; the child calls `work` on its one thread, hands its text over (at most 16 MiB), and ends
/// without running destructors or exit handlers. The child is killed after `seconds`, and
/// after `cpu_seconds` of the CPU (0: without bound). Its standard output and error go nowhere.
/// Throws kResource where no process can be made.
ChildResult run_in_child(const std::function<std::string()>& work, double seconds,
                         int cpu_seconds = 0);

}  // namespace conclave::engine
