#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/file.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace conclave {
namespace {

using testing::TempDir;
using testing::write_file;

template <class F>
void expect_error(ErrorCode code, const std::string& text, F f) {
    try {
        f();
        FAIL() << "nothing thrown, expected: " << text;
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), code) << e.what();
        EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
    }
}

std::string noise(size_t bytes) {
    std::mt19937 random(7);
    std::string text(bytes, '\0');
    for (char& c : text) c = static_cast<char>(random());
    return text;
}

TEST(File, ReadsAnyRangeFromManyThreads) {
    const TempDir dir;
    const std::string contents = noise(100'003);
    write_file(dir / "f", contents);
    const File file(dir / "f");
    EXPECT_EQ(file.size(), contents.size());
    EXPECT_EQ(file.path(), dir / "f");
    std::vector<int> wrong(4, 0);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            std::mt19937 random(static_cast<unsigned>(t));
            for (int i = 0; i < 500; ++i) {
                const size_t offset = random() % (contents.size() + 1);
                std::string part(random() % (contents.size() - offset + 1), '\x5a');
                file.read(offset, std::as_writable_bytes(std::span(part)));
                wrong[static_cast<size_t>(t)] += part != contents.substr(offset, part.size());
            }
        });
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(wrong, std::vector<int>(4, 0));
    EXPECT_EQ(file.read_whole(contents.size()), contents);
}

TEST(File, CountsSystemCalls) {
    const TempDir dir;
    write_file(dir / "f", noise(64));
    const File file(dir / "f");
    std::vector<std::byte> out(64);
    EXPECT_EQ(file.read(0, out), 1u);
    EXPECT_EQ(file.read(64, {}), 0u);
}

TEST(File, NamesWhatIsWrong) {
    const TempDir dir;
    write_file(dir / "f", "0123456789");
    const File file(dir / "f");
    std::vector<std::byte> out(4);
    expect_error(ErrorCode::kBadContent, dir / "f: expected at least 11 bytes, found 10",
                 [&] { file.read(7, out); });
    expect_error(ErrorCode::kBadContent, "f", [&] { file.read(UINT64_MAX - 1, out); });
    expect_error(ErrorCode::kBadContent, "f", [&] { file.read(uint64_t{1} << 62, out); });
    expect_error(ErrorCode::kBadContent, "at most 9 bytes, found 10", [&] { file.read_whole(9); });
    expect_error(ErrorCode::kMissingFile, "No such file", [&] { File(dir / "g"); });
    expect_error(ErrorCode::kMissingFile, "not a regular file", [&] { File(dir.path()); });
    expect_error(ErrorCode::kMissingFile, "not a regular file", [&] { File("/dev/zero"); });
    ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
    expect_error(ErrorCode::kMissingFile, "not a regular file", [&] { File(dir / "pipe"); });
}

TEST(File, NoticesThatItShrank) {
    const TempDir dir;
    write_file(dir / "f", noise(1000));
    const File file(dir / "f");
    std::filesystem::resize_file(dir / "f", 500);
    std::vector<std::byte> out(1000);
    expect_error(ErrorCode::kBadContent, "file is shorter than its header says",
                 [&] { file.read(0, out); });
    expect_error(ErrorCode::kBadContent, "shorter", [&] { file.read_whole(1 << 20); });
}

TEST(File, MovesAndClosesOnExec) {
    const TempDir dir;
    write_file(dir / "f", "abc");
    write_file(dir / "g", "defg");
    const int next = ::dup(0);  // the descriptor that the next open will get
    ASSERT_GE(next, 0);
    ::close(next);
    File a(dir / "f");
    EXPECT_TRUE(::fcntl(next, F_GETFD) & FD_CLOEXEC);
    File b(std::move(a));
    EXPECT_EQ(b.read_whole(3), "abc");
    b = File(dir / "g");
    EXPECT_EQ(b.read_whole(4), "defg");
    EXPECT_EQ(::fcntl(next, F_GETFD), -1) << "the first file is still open";
}

}  // namespace
}  // namespace conclave
