#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/base/log.h"

namespace conclave {
namespace {

TEST(Log, SilentByDefault) {
    const Log log;
    EXPECT_FALSE(log.enabled(LogLevel::kError));
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    log.error("lost {}", 1);
    log.write(LogLevel::kError, "lost");
    EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
    EXPECT_FALSE(Log(Log::Receiver()).enabled(LogLevel::kError));
}

TEST(Log, HandsOverFromItsLevelOn) {
    std::vector<std::string> got;
    const Log log(
        [&](LogLevel level, std::string_view m) {
            got.push_back(std::string(log_level_name(level)) + ": " + std::string(m));
        },
        LogLevel::kInfo);
    const Log copy = log;
    log.debug("not {}", "this");
    log.info("loaded {} in {:.1f}", 3, 2.04);
    copy.warning("{{}} {}", std::string("kept"));
    copy.error("plain");
    EXPECT_EQ(got, (std::vector<std::string>{"info: loaded 3 in 2.0", "warning: {} kept",
                                             "error: plain"}));
}

}  // namespace
}  // namespace conclave
