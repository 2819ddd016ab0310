#include "launch/console.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "launch/format.h"

namespace conclave::launch {
namespace {

// Carriage return, then erase to the end of the line.
constexpr std::string_view kEraseLine = "\r\033[K";

void to_stderr(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
}

}  // namespace

Console::Console(bool verbose) : verbose_(verbose), terminal_(isatty(STDERR_FILENO) != 0) {}

void Console::write(std::string_view text) {
    std::string out;
    if (bar_shown_) out += kEraseLine;
    bar_shown_ = false;
    out += text;
    to_stderr(out += '\n');
}

void Console::line(std::string_view text) {
    const std::lock_guard lock(mutex_);
    write(text);
}

void Console::log(int rank, LogLevel level, std::string_view message) {
    const LogLevel least = rank == 0 ? LogLevel::kInfo : LogLevel::kWarning;
    if (!verbose_ && level < least) return;
    std::string text = "conclave: ";
    if (level == LogLevel::kWarning) text += "warning: ";
    if (level == LogLevel::kError) text += "error: ";
    if (rank != 0) text += "rank " + std::to_string(rank) + ": ";
    line(text += terminal_safe(message));
}

void Console::progress(const Progress& progress, bool done) {
    const std::lock_guard lock(mutex_);
    if (!terminal_) {
        if (const auto text = steps_.line(progress)) write(*text);
        return;
    }
    if (done) {
        if (bar_shown_) to_stderr(kEraseLine);
        bar_shown_ = false;
        return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (bar_shown_ && now - last_bar_ < std::chrono::milliseconds(100)) return;
    last_bar_ = now;
    bar_shown_ = true;
    to_stderr(std::string(kEraseLine) + progress_bar(progress));
}

void Console::error(std::string_view what) {
    to_stderr((isatty(STDERR_FILENO) != 0 ? std::string(kEraseLine) : std::string()) +
              "conclave: error: " + terminal_safe(what) + "\n");
}

void print(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0)
        return;
    throw Error(ErrorCode::kResource,
                std::string("cannot write to standard output: ") + std::strerror(errno));
}

}  // namespace conclave::launch
