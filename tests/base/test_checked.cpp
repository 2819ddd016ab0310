#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

#include "runtime/base/checked.h"
#include "runtime/base/hash.h"
#include "runtime/base/text.h"

namespace conclave {
namespace {

constexpr auto kMaxU = std::numeric_limits<uint64_t>::max();
constexpr auto kMaxI = std::numeric_limits<int64_t>::max();
constexpr auto kMinI = std::numeric_limits<int64_t>::min();

template <class F>
void expect_overflow(F f) {
    try {
        f();
        FAIL() << "nothing thrown";
    } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kBadContent);
        EXPECT_NE(std::string(e.what()).find("rows"), std::string::npos) << e.what();
    }
}

TEST(Checked, ResultsThatFit) {
    EXPECT_EQ(checked_add(kMaxU - 1, 1), kMaxU);
    EXPECT_EQ(checked_add(kMaxI, kMinI), -1);
    EXPECT_EQ(checked_mul(uint64_t{1} << 32, (uint64_t{1} << 32) - 1), kMaxU - 0xffffffffu);
    EXPECT_EQ(checked_mul(kMaxI, -1), -kMaxI);
    EXPECT_EQ(checked_narrow<int32_t>(int64_t{-5}), -5);
    EXPECT_EQ(checked_narrow<uint8_t>(255), 255);
}

TEST(Checked, ResultsThatDoNot) {
    expect_overflow([] { checked_add(kMaxU, 1, "rows"); });
    expect_overflow([] { checked_add(kMaxI, 1, "rows"); });
    expect_overflow([] { checked_add(kMinI, -1, "rows"); });
    expect_overflow([] { checked_mul(uint64_t{1} << 32, uint64_t{1} << 32, "rows"); });
    expect_overflow([] { checked_mul(kMinI, -1, "rows"); });
    // 4194305 * 4194305 * 211106198978564 wraps to 4.
    expect_overflow([] {
        const uint64_t n = checked_mul(uint64_t{4194305}, uint64_t{4194305}, "rows");
        checked_mul(n, uint64_t{211106198978564}, "rows");
    });
    expect_overflow([] { checked_narrow<uint64_t>(int64_t{-1}, "rows"); });
    expect_overflow([] { checked_narrow<int64_t>(kMaxU, "rows"); });
    expect_overflow([] { checked_narrow<int32_t>(int64_t{1} << 31, "rows"); });
    expect_overflow([] { checked_narrow<uint8_t>(256, "rows"); });
}

TEST(Hash, KnownValues) {
    const auto of = [](std::string_view s) {
        return Hasher().add(std::as_bytes(std::span(s.data(), s.size()))).value();
    };
    EXPECT_EQ(of(""), 0xcbf29ce484222325u);  // the published test vectors of FNV-1a
    EXPECT_EQ(of("a"), 0xaf63dc4c8601ec8cu);
    EXPECT_EQ(of("foobar"), 0x85944171f73967e8u);
}

TEST(Hash, KeepsBoundariesAndOrder) {
    EXPECT_NE(Hasher().add("ab").add("c").value(), Hasher().add("a").add("bc").value());
    EXPECT_NE(Hasher().add(1).add(2).value(), Hasher().add(2).add(1).value());
    EXPECT_EQ(Hasher().add(int32_t{-7}).value(), Hasher().add(int64_t{-7}).value());
}

TEST(Text, NothingUnprintableGetsThrough) {
    EXPECT_EQ(printable("model.layers.0"), "model.layers.0");
    EXPECT_EQ(printable(std::string_view("a\0b\n\x1b[31m\xff", 10)), "a\\x00b\\x0a\\x1b[31m\\xff");
    EXPECT_EQ(printable("abcdef", 3), "abc...");
    EXPECT_EQ(in_quotes("x"), "\"x\"");
}

}  // namespace
}  // namespace conclave
