#include "runtime/engine/plugins/child_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
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

TEST(ChildProcess, IsEndedWhenItsTimeOfTheCpuIsOver) {
    const ChildResult busy = run_in_child(
        []() -> std::string {
            for (const volatile int on = 1; on != 0;) continue;
            return "";
        },
        60, 1);
    EXPECT_FALSE(busy.finished);
    EXPECT_FALSE(busy.timed_out);
    EXPECT_EQ(busy.fate(), "did not end within 1 s of the CPU");
    // Waiting is not counted, nor what this process has used.
    while (std::clock() < CLOCKS_PER_SEC + CLOCKS_PER_SEC / 10) continue;
    const ChildResult idle =
        run_in_child([]() -> std::string { return usleep(1'200'000), "done"; }, 60, 1);
    EXPECT_EQ(idle.output, "done") << idle.fate();
}

TEST(ChildProcess, WorksWhereSigchldIsIgnored) {
    struct sigaction before {};
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGCHLD, &ignore, &before);
    const ChildResult good = run_in_child([] { return std::string("done"); }, 60);
    const ChildResult left = run_in_child([]() -> std::string { _exit(3); }, 60);
    const ChildResult idle = run_in_child(
        []() -> std::string {
            for (;;) pause();
        },
        0.2);
    sigaction(SIGCHLD, &before, nullptr);
    EXPECT_TRUE(good.finished);
    EXPECT_EQ(good.output, "done");
    EXPECT_FALSE(left.finished);
    EXPECT_FALSE(left.timed_out);
    EXPECT_EQ(left.fate(), "ended, how is not known (SIGCHLD is ignored)");
    EXPECT_EQ(idle.fate(), "did not end within 0.2 s");
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
