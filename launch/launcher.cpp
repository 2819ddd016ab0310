#include "launch/launcher.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <string>

#ifdef CONCLAVE_WITH_MPI
#include "runtime/api/conclave_mpi.hpp"
#endif

namespace conclave::launch {
namespace {

bool is_open_mpi(pid_t process) {
    std::ifstream in("/proc/" + std::to_string(process) + "/comm");
    std::string name;
    std::getline(in, name);
    return name == "mpirun" || name == "orterun" || name == "mpiexec" || name == "orted";
}

/// Only what a signal handler may call: this is the child of a process with threads.
[[noreturn]] void watch(int launcher, int seconds) {
    setsid();  // mpirun kills the groups of its ranks
    // Whoever reads what the job says waits until all have closed it.
    dup2(launcher, STDIN_FILENO);
    close_range(1, ~0U, 0);
    pollfd ends{STDIN_FILENO, POLLIN, 0};
    // The first process of a container hears no SIGKILL from inside, but a signal it handles.
    for (const int number : {SIGKILL, SIGTERM}) {
        if (poll(&ends, 1, number == SIGKILL ? seconds * 1000 : 1000) != 0) break;
        syscall(SYS_pidfd_send_signal, STDIN_FILENO, number, nullptr, 0);
    }
    _exit(0);
}

#ifdef CONCLAVE_WITH_MPI
const TcpPeers* peers = nullptr;

void say_who_is_lost(int number) {
    constexpr char kBegin[] = "conclave: error: no connection is left with ";
    char text[1024];
    std::memcpy(text, kBegin, sizeof kBegin - 1);
    size_t length = sizeof kBegin - 1;
    if (const size_t more = peers->lost(text + length, sizeof text - length - 1); more > 0) {
        length += more;
        text[length++] = '\n';
        [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, length);
    }
    raise(number);  // handled once: this ends the process
}
#endif

}  // namespace

#ifdef CONCLAVE_WITH_MPI
void name_lost_hosts(const Comm& comm) {
    static const TcpPeers noted(comm);
    if (comm.rank() != 0) return;
    peers = &noted;
    struct sigaction action {};
    action.sa_handler = say_who_is_lost;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(SIGTERM, &action, nullptr);
}
#endif

void outlive_launcher(int seconds) noexcept {
    try {
        const pid_t launcher = getppid();
        if (!is_open_mpi(launcher)) return;
        const int handle = static_cast<int>(syscall(SYS_pidfd_open, launcher, 0));
        // Ended in between: its number may be another's now.
        if (handle < 0 || getppid() != launcher) return;
        if (fork() == 0) watch(handle, seconds);
    } catch (const std::exception&) {
        // Without memory for a name there is nothing to be done.
    }
}

}  // namespace conclave::launch
