#include "runtime/engine/plugins/child_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>

namespace conclave::engine {
namespace {

TEST(ChildProcess, HandsOverText) {
    std::string text(size_t{3} << 20, 'x');
    for (size_t i = 0; i < text.size(); i += 7) text[i] = static_cast<char>(i >> 8);
    for (const std::string& t : {std::string(), std::string("a\0b", 3), text}) {
        const ChildResult r = run_in_child([&] { return t; }, 60);
        EXPECT_TRUE(r.finished);
        EXPECT_TRUE(r.output == t);
        EXPECT_EQ(r.error, "");
        EXPECT_EQ(r.fate(), "");
    }
    const ChildResult r =
        run_in_child([&] { return std::string((size_t{16} << 20) + 1, 'y'); }, 60);
    EXPECT_TRUE(r.finished);
    EXPECT_EQ(r.error, "more than 16 MiB of text");
}

TEST(ChildProcess, HandsOverWhatIsThrown) {
    const ChildResult r = run_in_child([]() -> std::string { throw std::runtime_error("no"); }, 60);
    EXPECT_TRUE(r.finished);
    EXPECT_EQ(r.error, "no");
    EXPECT_TRUE(run_in_child([]() -> std::string { throw 5; }, 60).finished);
}

TEST(ChildProcess, ChangesNothingHere) {
    int here = 1;
    run_in_child([&] { return here = 2, std::string(); }, 60);
    EXPECT_EQ(here, 1);
}

TEST(ChildProcess, SaysHowItEnded) {
    const ChildResult fault = run_in_child(
        []() -> std::string {
            *static_cast<volatile int*>(nullptr) = 1;
            return "";
        },
        60);
    EXPECT_FALSE(fault.finished);
    EXPECT_EQ(fault.fate(), "ended with signal 11 (Segmentation fault)");
    EXPECT_EQ(run_in_child([]() -> std::string { std::abort(); }, 60).signal, SIGABRT);
    const ChildResult left = run_in_child([]() -> std::string { _exit(3); }, 60);
    EXPECT_FALSE(left.finished);
    EXPECT_EQ(left.fate(), "called exit(3)");
}

TEST(ChildProcess, IsEndedWhenItsTimeIsOver) {
    const ChildResult idle = run_in_child(
        []() -> std::string {
            for (;;) pause();
        },
        0.2);
    EXPECT_FALSE(idle.finished);
    EXPECT_TRUE(idle.timed_out);
    EXPECT_EQ(idle.fate(), "did not end within 0.2 s");
    // One that has closed the pipe, too.
    const ChildResult mute = run_in_child(
        []() -> std::string {
            for (int fd = 3; fd < 1024; ++fd) close(fd);
            for (;;) pause();
        },
        0.2);
    EXPECT_FALSE(mute.finished);
    EXPECT_EQ(mute.fate(), "did not end within 0.2 s");
}

TEST(ChildProcess, HandlersOfTheParentDoNotRunInIt) {
    struct sigaction before {};
    struct sigaction leave {};
    leave.sa_handler = [](int) { _exit(0); };
    sigaction(SIGSEGV, &leave, &before);
    const ChildResult r = run_in_child([]() -> std::string { return raise(SIGSEGV), ""; }, 60);
    sigaction(SIGSEGV, &before, nullptr);
    EXPECT_EQ(r.signal, SIGSEGV);
}

}  // namespace
}  // namespace conclave::engine
