#include "runtime/engine/plugins/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <exception>
#include <thread>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"

namespace conclave::engine {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxText = size_t{16} << 20;

/// What a child says: this, then `bytes` bytes of text.
struct Header {
    uint64_t bytes = 0;
    uint64_t threw = 0;
};

void write_all(int fd, const void* data, size_t bytes) {
    const auto* from = static_cast<const char*>(data);
    while (bytes > 0) {
        const ssize_t n = write(fd, from, bytes);
        if (n < 0 && errno != EINTR) return;
        if (n <= 0) continue;
        from += n;
        bytes -= static_cast<size_t>(n);
    }
}

/// Seconds of the CPU that a child can be given: no more than this process may have.
int cpu_bound(int asked) {
    rlimit now;
    if (asked <= 0 || getrlimit(RLIMIT_CPU, &now) != 0) return asked;
    return static_cast<int>(std::min<rlim_t>(now.rlim_cur, static_cast<rlim_t>(asked)));
}

/// SIGXCPU then; SIGKILL to one that minds it not. Children start at 0.
void limit_cpu(int seconds) {
    rlimit limit;
    if (seconds <= 0 || getrlimit(RLIMIT_CPU, &limit) != 0) return;
    limit.rlim_cur = static_cast<rlim_t>(seconds);
    limit.rlim_max = std::min<rlim_t>(limit.rlim_max, limit.rlim_cur + 1);
    setrlimit(RLIMIT_CPU, &limit);
}

/// A fault of the child is the child's: no handler of the parent's runs in it, nothing is printed,
/// no core is left, and it does not outlive its parent.
void isolate(pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);  // it ended before the line above
    for (int s = 1; s < NSIG; ++s) signal(s, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    const rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; nowhere >= 0 && fd <= 2; ++fd) dup2(nowhere, fd);
}

[[noreturn]] void be_child(const std::function<std::string()>& work, int out, pid_t parent) {
    isolate(parent);
    Header header;
    std::string text;
    try {
        text = work();
    } catch (const std::exception& e) {
        header.threw = 1;
        text = e.what();
        if (text.empty()) text = "an error without words";
    } catch (...) {
        header.threw = 1;
        text = "something that is no std::exception";
    }
    if (text.size() > kMaxText) header.threw = 1, text = "more than 16 MiB of text";
    header.bytes = text.size();
    write_all(out, &header, sizeof header);
    write_all(out, text.data(), text.size());
    _exit(0);
}

/// Appends to `said` until it is a whole message, the child is gone, or the time is over (true).
bool listen(int in, Clock::time_point end, std::string& said) {
    char buffer[4096];
    for (;;) {
        Header header;
        if (said.size() >= sizeof header) {
            std::memcpy(&header, said.data(), sizeof header);
            if (said.size() >= sizeof header + header.bytes) return false;
        }
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
        if (left <= 0) return true;
        pollfd waiting = {in, POLLIN, 0};
        if (poll(&waiting, 1, static_cast<int>(std::min<int64_t>(left, 1 << 20))) <= 0) continue;
        const ssize_t n = read(in, buffer, sizeof buffer);
        if (n == 0 || (n < 0 && errno != EINTR)) return false;
        if (n > 0) said.append(buffer, static_cast<size_t>(n));
    }
}

enum class Reaped { kStatus, kEnded, kLost };

/// Waits for the child's end, at most until `end`, then ends it (kEnded). kLost: it has ended, but
/// its status went elsewhere.
Reaped reap(pid_t child, Clock::time_point end, int& status) {
    for (;;) {
        const pid_t ended = waitpid(child, &status, WNOHANG);
        if (ended == child) return Reaped::kStatus;
        if (ended < 0 && errno != EINTR) return Reaped::kLost;
        if (Clock::now() >= end) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    kill(child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    return Reaped::kEnded;
}

const char* why_lost() {
    struct sigaction now {};
    sigaction(SIGCHLD, nullptr, &now);
    const bool ignored = now.sa_handler == SIG_IGN || (now.sa_flags & SA_NOCLDWAIT) != 0;
    return ignored ? "SIGCHLD is ignored" : "something else waited for it";
}

/// Takes a message apart; false where it is not whole.
bool understand(const std::string& said, ChildResult& result) {
    Header header;
    if (said.size() < sizeof header) return false;
    std::memcpy(&header, said.data(), sizeof header);
    if (header.bytes > kMaxText || said.size() != sizeof header + header.bytes) return false;
    (header.threw ? result.error : result.output) = said.substr(sizeof header);
    return true;
}

}  // namespace

std::string ChildResult::fate() const {
    if (finished) return "";
    if (timed_out) return fmt::format("did not end within {} s", seconds);
    if (!lost.empty()) return fmt::format("ended, how is not known ({})", lost);
    if (cpu_seconds > 0 && signal == SIGXCPU)
        return fmt::format("did not end within {} s of the CPU", cpu_seconds);
    if (signal != 0) return fmt::format("ended with signal {} ({})", signal, strsignal(signal));
    return fmt::format("called exit({})", exit_code);
}

ChildResult run_in_child(const std::function<std::string()>& work, double seconds,
                         int cpu_seconds) {
    const auto refuse = [](const char* what) {
        throw Error(ErrorCode::kResource, std::string(what) + " (" + std::strerror(errno) + ")");
    };
    cpu_seconds = cpu_bound(cpu_seconds);
    int pipe_ends[2];
    if (pipe2(pipe_ends, O_CLOEXEC) != 0) refuse("cannot make a pipe");
    const pid_t parent = getpid();
    const pid_t child = fork();
    if (child < 0) {
        close(pipe_ends[0]);
        close(pipe_ends[1]);
        refuse("cannot make a process");
    }
    if (child == 0) {
        close(pipe_ends[0]);
        limit_cpu(cpu_seconds);
        be_child(work, pipe_ends[1], parent);
    }
    close(pipe_ends[1]);
    ChildResult result;
    result.seconds = seconds, result.cpu_seconds = cpu_seconds;
    const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double>(std::min(seconds, 1e6)));
    std::string said;
    const bool late = listen(pipe_ends[0], end, said);
    close(pipe_ends[0]);
    result.finished = understand(said, result);
    if (result.finished || late) kill(child, SIGKILL);  // it has nothing more to do
    int status = 0;
    const Reaped reaped =
        reap(child, result.finished || late ? Clock::time_point::max() : end, status);
    if (result.finished) return result;
    result.timed_out = late || reaped == Reaped::kEnded;
    if (result.timed_out) return result;
    if (reaped == Reaped::kLost)
        result.lost = why_lost();
    else if (WIFSIGNALED(status))
        result.signal = WTERMSIG(status);
    else
        result.exit_code = WEXITSTATUS(status);
    return result;
}

}  // namespace conclave::engine
