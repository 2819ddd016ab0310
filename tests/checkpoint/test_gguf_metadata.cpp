// Typed access to the key-value pairs of GGUF files.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/file.h"
#include "sharding/checkpoint/gguf/container.h"
#include "tests/checkpoint/expect.h"
#include "tests/support/gguf_file.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace conclave {
namespace {

using testing::expect_error;
using testing::GgufFile;
using testing::le;

class Metadata : public ::testing::Test {
  protected:
    sharding::GgufMetadata read(const GgufFile& file) {
        testing::write_file(path_, file.bytes());
        const File opened(path_);
        sharding::ReadCounters counters;
        return sharding::read_gguf_header(opened, 0, counters).metadata;
    }
    template <class Attempt>
    void refuses(Attempt&& attempt, const std::string& key, const std::string& expected,
                 const std::string& found) {
        SCOPED_TRACE(key + " " + found);
        expect_error(attempt, ErrorCode::kBadContent,
                     {path_, "\"" + key + "\"", "expected " + expected, "found " + found});
    }
    const testing::TempDir dir_;
    const std::string path_ = dir_ / "m.gguf";
};

TEST_F(Metadata, IntegersOfEveryType) {
    const auto m = read(GgufFile()
                            .pair("u8", GgufFile::kU8, le(uint8_t{200}))
                            .pair("i8", GgufFile::kI8, le(int8_t{-100}))
                            .u16("u16", 65535)
                            .pair("i16", GgufFile::kI16, le(int16_t{-30000}))
                            .u32("u32", 4294967295u)
                            .i32("i32", -2147483647 - 1)
                            .u64("u64", uint64_t{1} << 62)
                            .pair("i64", GgufFile::kI64, le(std::numeric_limits<int64_t>::min()))
                            .u64("huge", UINT64_MAX)
                            .boolean("yes", true)
                            .f32("f", 1)
                            .text("t", "7"));
    constexpr int64_t kLow = std::numeric_limits<int64_t>::min();
    constexpr int64_t kHigh = std::numeric_limits<int64_t>::max();
    EXPECT_EQ(m.get_int("u8", 0, 200), 200);
    EXPECT_EQ(m.get_int("i8", -100, 0), -100);
    EXPECT_EQ(m.get_int("u16", 0, kHigh), 65535);
    EXPECT_EQ(m.get_int("i16", kLow, kHigh), -30000);
    EXPECT_EQ(m.get_int("u32", 0, kHigh), 4294967295);
    EXPECT_EQ(m.get_int("i32", kLow, kHigh), -2147483648);
    EXPECT_EQ(m.get_int("u64", 0, kHigh), int64_t{1} << 62);
    EXPECT_EQ(m.get_int("i64", kLow, kHigh), kLow);
    EXPECT_EQ(m.get_int_or("none", 5, 0, 1), 5);
    EXPECT_EQ(m.get_int_or("u8", 5, 0, 255), 200);
    EXPECT_TRUE(m.has("u8"));
    EXPECT_FALSE(m.has("none"));
    EXPECT_FALSE(m.has(""));

    refuses([&] { m.get_int("u8", 0, 199); }, "u8", "an integer from 0 to 199", "200");
    refuses([&] { m.get_int_or("i8", 0, -99, 9); }, "i8", "an integer from -99 to 9", "-100");
    refuses([&] { m.get_int("huge", 0, kHigh); }, "huge", "an integer", "18446744073709551615");
    refuses([&] { m.get_int("none", 0, 9); }, "none", "an integer from 0 to 9", "no such key");
    refuses([&] { m.get_int("yes", 0, 9); }, "yes", "an integer", "bool 1");
    refuses([&] { m.get_int("f", 0, 9); }, "f", "an integer", "f32 1");
    refuses([&] { m.get_int_or("t", 0, 0, 9); }, "t", "an integer", "string \"7\"");
}

TEST_F(Metadata, FloatsBoolsStrings) {
    const auto m = read(GgufFile()
                            .f32("f", 0.5f)
                            .pair("d", GgufFile::kF64, le(1e-300))
                            .f32("nan", std::nanf(""))
                            .f32("inf", std::numeric_limits<float>::infinity())
                            .boolean("no", false)
                            .boolean("yes", true)
                            .pair("maybe", GgufFile::kBool, "\x02")
                            .u32("one", 1)
                            .text("t", std::string("a\0\xff", 3))
                            .text("empty", ""));
    EXPECT_EQ(m.get_float("f", 0, 1), 0.5);
    EXPECT_EQ(m.get_float("d", 0, 1), 1e-300);
    EXPECT_EQ(m.get_float_or("none", 3, 0, 1), 3);
    EXPECT_FALSE(m.get_bool_or("no", true));
    EXPECT_TRUE(m.get_bool_or("yes", false));
    EXPECT_TRUE(m.get_bool_or("none", true));
    EXPECT_EQ(m.get_string("t"), std::string("a\0\xff", 3));
    EXPECT_EQ(m.get_string("empty"), "");
    EXPECT_EQ(m.get_string_or("none", "x"), "x");

    refuses([&] { m.get_float("f", 0, 0.25); }, "f", "a float from 0 to 0.25", "f32 0.5");
    refuses([&] { m.get_float("nan", -1e300, 1e300); }, "nan", "a float", "f32 nan");
    refuses([&] { m.get_float_or("inf", 0, 0, 1e300); }, "inf", "a float", "f32 inf");
    refuses([&] { m.get_float("one", 0, 9); }, "one", "a float", "u32 1");
    refuses([&] { m.get_float("none", 0, 9); }, "none", "a float", "no such key");
    refuses([&] { m.get_bool_or("maybe", false); }, "maybe", "a bool, 0 or 1", "bool 2");
    refuses([&] { m.get_bool_or("one", false); }, "one", "a bool", "u32 1");
    refuses([&] { m.get_string("one"); }, "one", "a string", "u32 1");
    refuses([&] { m.get_string("none"); }, "none", "a string", "no such key");
    refuses([&] { m.get_string_or("f", "x"); }, "f", "a string", "f32 0.5");
}

TEST_F(Metadata, Arrays) {
    const auto m = read(
        GgufFile()
            .numbers<int32_t>("i", GgufFile::kI32, {-1, 0, 7})
            .numbers<uint8_t>("u8", GgufFile::kU8, {1, 2, 3, 4})
            .numbers<float>("f", GgufFile::kF32, {0.5f, -2})
            .numbers<double>("d", GgufFile::kF64, {0.25, -std::numeric_limits<double>::infinity()})
            .numbers<double>("wide", GgufFile::kF64, {1e300})
            .texts("t", {"", "ab", std::string(300, 'x')})
            .texts("none", {})
            .u32("scalar", 1));
    using Ints = std::vector<int64_t>;
    EXPECT_EQ(m.get_ints("i", -1, 7, 3), (Ints{-1, 0, 7}));
    EXPECT_EQ(m.get_ints("u8", 0, 7, 9), (Ints{1, 2, 3, 4}));
    EXPECT_EQ(m.get_floats("f", 2), (std::vector<float>{0.5f, -2}));
    EXPECT_EQ(m.get_floats("d", 2)[0], 0.25f);
    EXPECT_TRUE(std::isinf(m.get_floats("d", 2)[1]));
    EXPECT_EQ(m.get_strings("t", 3),
              (std::vector<std::string_view>{"", "ab", std::string(300, 'x')}));
    EXPECT_TRUE(m.get_strings("none", 0).empty());
    EXPECT_TRUE(m.is_array("t"));
    EXPECT_FALSE(m.is_array("scalar"));
    EXPECT_FALSE(m.is_array("absent"));

    refuses([&] { m.get_ints("i", 0, 7, 3); }, "i", "an integer from 0 to 7", "-1");
    refuses([&] { m.get_ints("i", -1, 7, 2); }, "i", "an array of up to 2", "array of 3 i32");
    refuses([&] { m.get_floats("u8", 9); }, "u8", "an array of up to 9 floats", "array of 4 u8");
    refuses([&] { m.get_floats("wide", 9); }, "wide", "floats of 32 bits", "1e+300");
    refuses([&] { m.get_ints("f", 0, 9, 9); }, "f", "an array of up to 9 integers", "array of 2");
    refuses([&] { m.get_strings("i", 9); }, "i", "an array of up to 9 strings", "array of 3 i32");
    refuses([&] { m.get_strings("t", 2); }, "t", "an array of up to 2", "array of 3 string");
    refuses([&] { m.get_ints("scalar", 0, 9, 9); }, "scalar", "an array", "u32 1");
    refuses([&] { m.get_int("i", 0, 9); }, "i", "an integer", "array of 3 i32");
    refuses([&] { m.get_strings("absent", 9); }, "absent", "an array", "no such key");
}

TEST_F(Metadata, DuplicateKey) {
    refuses([&] { read(GgufFile().u32("k", 1).text("other", "").text("k", "again")); }, "k",
            "each key once", "it again, as string \"again\"");
}

}  // namespace
}  // namespace conclave
