// Files that break one rule each. All must be refused with a message that names the file and says
// what is wrong, whatever sizes they claim.
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "sharding/checkpoint/reader.h"
#include "tests/checkpoint/expect.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace conclave {
namespace {

using testing::expect_refused;
using testing::raw_safetensors;
using testing::TempDir;
using testing::write_file;

/// One tensor entry with its fields as given.
std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets,
                  const std::string& name = "t") {
    return "\"" + name + "\":{\"dtype\":" + dtype + ",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}";
}

std::string u8(const std::string& name, int begin, int end) {
    const std::string b = std::to_string(begin), e = std::to_string(end);
    return entry("\"U8\"", "[" + std::to_string(end - begin) + "]", "[" + b + "," + e + "]", name);
}

std::string length_field(uint64_t n) {
    std::string bytes;
    for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(n >> shift & 0xff);
    return bytes;
}

std::string repeat(const std::string& part, size_t times) {
    std::string text;
    text.reserve(part.size() * times);
    for (size_t i = 0; i < times; ++i) text += part;
    return text;
}

struct Case {
    const char* label;
    std::string bytes;
    std::string says;
};

class Hostile : public ::testing::Test {
  protected:
    void check(const std::vector<Case>& cases) {
        for (const Case& c : cases) {
            SCOPED_TRACE(c.label);
            const std::string path = dir_ / "model.safetensors";
            write_file(path, c.bytes);
            expect_refused(dir_.path(), ErrorCode::kBadContent, {path, c.says});
        }
    }
    /// Cases whose header is wrong; four bytes of data follow.
    void check_headers(const std::vector<Case>& cases) {
        std::vector<Case> whole = cases;
        for (Case& c : whole) c.bytes = raw_safetensors(c.bytes, "data");
        check(whole);
    }
    const TempDir dir_;
};

TEST_F(Hostile, LengthField) {
    const std::string good = raw_safetensors("{" + u8("t", 0, 4) + "}", "data");
    check({
        {"empty file", "", "at least 8 bytes, found 0"},
        {"seven bytes", std::string(7, '\0'), "found 7"},
        {"length only, zero", length_field(0), "a JSON object"},
        {"zero length, data", length_field(0) + "data", "a JSON object"},
        {"length only, two", length_field(2), "file ends inside"},
        {"one byte short", length_field(3) + "{}", "at least 11 bytes, found 10"},
        {"at the limit", length_field(100'000'000) + "{}", "file ends inside"},
        {"above the limit", length_field(100'000'001) + "{}", "at most 100000000"},
        {"2^60", length_field(uint64_t{1} << 60) + "{}", "found 1152921504606846976"},
        {"2^63", length_field(uint64_t{1} << 63) + "{}", "at most 100000000"},
        {"wraps with 8", length_field(UINT64_MAX - 7) + "{}", "at most 100000000"},
        {"all ones", length_field(UINT64_MAX) + "{}", "at most 100000000"},
        {"git-lfs pointer", "version https://git-lfs.github.com/spec/v1\n", "git-lfs"},
        {"truncated in the header", good.substr(0, 30), "file ends inside"},
        {"truncated in the data", good.substr(0, good.size() - 1), "beyond the end"},
        {"all data gone", good.substr(0, good.size() - 4), "beyond the end"},
        {"one byte more", good + "x", "belong to no tensor"},
        {"another file behind", good + good, "belong to no tensor"},
    });
}

TEST_F(Hostile, NotAJsonObject) {
    check_headers({
        {"blank first", " {}", "a JSON object"},
        {"newline first", "\n{}", "a JSON object"},
        {"byte order mark", "\xef\xbb\xbf{}", "a JSON object"},
        {"array", "[]", "a JSON object"},
        {"string", "\"{}\"", "a JSON object"},
        {"number", "7", "a JSON object"},
        {"unfinished", "{", "not valid JSON"},
        {"unfinished tensor", "{" + u8("t", 0, 4), "not valid JSON"},
        {"two objects", "{}{}", "not valid JSON"},
        {"tail", "{" + u8("t", 0, 4) + "} x", "not valid JSON"},
        {"NUL padding", "{" + u8("t", 0, 4) + "}" + std::string(3, '\0'), "NUL"},
        {"comment", "{/**/" + u8("t", 0, 4) + "}", "not valid JSON"},
        {"trailing comma", "{" + u8("t", 0, 4) + ",}", "not valid JSON"},
        {"single quotes", "{'t':{}}", "not valid JSON"},
        {"bad UTF-8 in a name", "{" + u8("t\xff", 0, 4) + "}", "UTF-8"},
        {"overlong UTF-8", "{" + u8("t\xc0\xaf", 0, 4) + "}", "UTF-8"},
        {"surrogate in UTF-8", "{" + u8("t\xed\xa0\x80", 0, 4) + "}", "UTF-8"},
        {"cut UTF-8", "{" + u8("t\xe2\x82", 0, 4) + "}", "UTF-8"},
        {"bad UTF-8 outside strings", "{" + u8("t", 0, 4) + "\xff}", "not valid JSON"},
        {"lone surrogate escape", "{" + u8("t\\ud800", 0, 4) + "}", "not valid JSON"},
        {"control character", "{" + u8("t\x01", 0, 4) + "}", "not valid JSON"},
        {"deep arrays", "{\"t\":" + repeat("[", 10'000'000), ""},
        {"deep objects", repeat("{\"t\":", 2'000'000), ""},
        {"deep shape", "{" + entry("\"U8\"", repeat("[", 10'000'000), "[0,4]"), "an array"},
    });
}

TEST_F(Hostile, Structure) {
    check_headers({
        {"no tensor at all", "{}", "belong to no tensor"},
        {"tensor is null", "{\"t\":null}", "found null"},
        {"tensor is a string", "{\"t\":\"U8\"}", "found \"U8\""},
        {"tensor is an array", "{\"t\":[]}", "found an array"},
        {"tensor is a number", "{\"t\":4}", "found 4"},
        {"tensor is true", "{\"t\":true}", "found true"},
        {"tensor is empty", "{\"t\":{}}", "is missing"},
        {"no dtype", R"({"t":{"shape":[4],"data_offsets":[0,4]}})", "is missing"},
        {"no shape", R"({"t":{"dtype":"U8","data_offsets":[0,4]}})", "is missing"},
        {"no offsets", R"({"t":{"dtype":"U8","shape":[4]}})", "is missing"},
        {"extra field", R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1}})",
         "unknown field \"x\""},
        {"wrong case", R"({"t":{"DType":"U8","shape":[4],"data_offsets":[0,4]}})", "unknown field"},
        {"field twice", R"({"t":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
         "duplicate field \"dtype\""},
        {"name twice", "{" + u8("t", 0, 2) + "," + u8("t", 2, 4) + "}", "duplicate tensor name"},
        {"name twice, escaped", "{" + u8("t", 0, 2) + "," + u8("\\u0074", 2, 4) + "}",
         "duplicate tensor name"},
        {"empty name twice", "{" + u8("", 0, 2) + "," + u8("", 2, 4) + "}",
         "duplicate tensor name"},
        {"metadata null", "{\"__metadata__\":null," + u8("t", 0, 4) + "}", "to be an object"},
        {"metadata array", "{\"__metadata__\":[]," + u8("t", 0, 4) + "}", "to be an object"},
        {"metadata string", "{\"__metadata__\":\"x\"," + u8("t", 0, 4) + "}", "to be an object"},
        {"metadata number value", "{\"__metadata__\":{\"a\":1}," + u8("t", 0, 4) + "}",
         "to be strings, found 1"},
        {"metadata null value", "{\"__metadata__\":{\"a\":null}," + u8("t", 0, 4) + "}",
         "to be strings"},
        {"metadata nested", "{\"__metadata__\":{\"a\":{}}," + u8("t", 0, 4) + "}", "to be strings"},
        {"metadata key twice", R"({"__metadata__":{"a":"1","a":"2"},)" + u8("t", 0, 4) + "}",
         "duplicate metadata key"},
        {"metadata twice", R"({"__metadata__":{},"__metadata__":{},)" + u8("t", 0, 4) + "}",
         "duplicate __metadata__"},
    });
}

TEST_F(Hostile, TypesAndShapes) {
    const auto shaped = [](const std::string& shape) {
        return "{" + entry("\"U8\"", shape, "[0,4]") + "}";
    };
    const auto typed = [](const std::string& dtype, const std::string& shape = "[4]") {
        return "{" + entry(dtype, shape, "[0,4]") + "}";
    };
    check_headers({
        {"dtype unknown", typed("\"F7\""), "found \"F7\""},
        {"dtype lower case", typed("\"u8\""), "found \"u8\""},
        {"dtype empty", typed("\"\""), "found \"\""},
        {"dtype number", typed("8"), "a dtype"},
        {"dtype null", typed("null"), "a dtype"},
        {"dtype array", typed("[\"U8\"]"), "a dtype"},
        {"dtype with escapes to a terminal", typed("\"\\u001b[31m\""), "\\x1b[31m"},
        {"shape number", shaped("4"), "shape to be an array"},
        {"shape null", shaped("null"), "shape to be an array"},
        {"shape object", shaped("{}"), "shape to be an array"},
        {"shape string", shaped("[\"4\"]"), "dimensions"},
        {"shape nested", shaped("[[4]]"), "dimensions"},
        {"shape true", shaped("[true]"), "dimensions"},
        {"shape null inside", shaped("[null]"), "dimensions"},
        {"dimension negative", shaped("[-4]"), "found -4"},
        {"two negatives", shaped("[-2,-2]"), "found -2"},
        {"dimension -0", shaped("[-0]"), "found -0"},
        {"dimension 4.0", shaped("[4.0]"), "found 4.0"},
        {"dimension 4e0", shaped("[4e0]"), "dimensions"},
        {"dimension 1e30", shaped("[1e30]"), "found 1e+30"},
        {"dimension 1e400", shaped("[1e400]"), "overflow"},
        {"dimension 2^63", shaped("[9223372036854775808]"), "found 9223372036854775808"},
        {"dimension 2^64", shaped("[18446744073709551616]"), "dimensions"},
        {"dimension 2^64 + 4", shaped("[18446744073709551620]"), "dimensions"},
        {"leading zero", shaped("[04]"), "not valid JSON"},
        {"product wraps to 4", shaped("[4194305,4194305,211106198978564]"), "overflows 64 bits"},
        {"product wraps to 0", shaped("[4294967296,4294967296]"), "overflows 64 bits"},
        {"bits wrap", typed("\"F64\"", "[288230376151711744]"), "overflows 64 bits"},
        {"bits wrap to 32", shaped("[2305843009213693956]"), "overflows 64 bits"},
        {"wraps before a zero", shaped("[9223372036854775807,4,0]"), "overflows 64 bits"},
        {"33 dimensions", shaped("[" + repeat("1,", 32) + "4]"), "dimensions"},
        {"10^7 dimensions", shaped("[" + repeat("1,", 10'000'000) + "4]"), "dimensions"},
        {"too small", shaped("[3]"), "expected 3 bytes for U8 [3], found 4 bytes"},
        {"too large", shaped("[5]"), "expected 5 bytes for U8 [5], found 4 bytes"},
        {"scalar", shaped("[]"), "expected 1 bytes"},
        {"zero", shaped("[4,0]"), "expected 0 bytes"},
        {"wider type", typed("\"BF16\""), "expected 8 bytes for BF16 [4], found 4 bytes"},
        {"half a byte", typed("\"F4\"", "[7]"), "whole number of bytes"},
        {"six bits", typed("\"F6_E2M3\"", "[5]"), "whole number of bytes"},
    });
}

TEST_F(Hostile, Offsets) {
    const auto at = [](const std::string& offsets, const std::string& shape = "[4]") {
        return "{" + entry("\"U8\"", shape, offsets) + "}";
    };
    check_headers({
        {"none", at("[]"), "only 0"},
        {"one", at("[4]"), "only 1"},
        {"three", at("[0,4,4]"), "a third"},
        {"number", at("4"), "data_offsets to be an array"},
        {"null", at("null"), "data_offsets to be an array"},
        {"object", at("{\"0\":0}"), "data_offsets to be an array"},
        {"strings", at("[\"0\",\"4\"]"), "two offsets"},
        {"nested", at("[[0,4]]"), "two offsets"},
        {"negative", at("[-4,0]"), "found -4"},
        {"float", at("[0,4.0]"), "found 4.0"},
        {"2^64", at("[0,18446744073709551616]"), "two offsets"},
        {"backwards", at("[4,0]"), "run backwards"},
        {"backwards, and wraps to 4", at("[18446744073709551615,3]"), "run backwards"},
        {"hole at the start", at("[1,4]", "[3]"), "hole"},
        {"far away", at("[18446744073709551611,18446744073709551615]"), "hole"},
        {"past the end", at("[0,5]", "[5]"), "beyond the end"},
        {"2^62 bytes", at("[0,1152921504606846976]", "[1152921504606846976]"), "beyond the end"},
        {"tail unclaimed", at("[0,3]", "[3]"), "belong to no tensor"},
        {"hole between", "{" + u8("a", 0, 1) + "," + u8("b", 2, 4) + "}", "hole"},
        {"overlap", "{" + u8("a", 0, 3) + "," + u8("b", 2, 4) + "}", "overlap"},
        {"same bytes twice", "{" + u8("a", 0, 4) + "," + u8("b", 0, 4) + "}", "overlap"},
        {"one inside another", "{" + u8("a", 0, 4) + "," + u8("b", 1, 2) + "}", "overlap"},
        {"empty inside another", "{" + u8("a", 0, 4) + "," + u8("b", 2, 2) + "}", "overlap"},
        {"empty past the end", "{" + u8("a", 0, 4) + "," + u8("b", 9, 9) + "}", "hole"},
        {"second past the end", "{" + u8("a", 0, 4) + "," + u8("b", 4, 5) + "}", "beyond the end"},
    });
}

TEST_F(Hostile, NamesTheTensor) {
    const std::string path = dir_ / "model.safetensors";
    const std::string good = u8("first", 0, 2), bad = entry("\"U8\"", "[3]", "[2,4]", "second");
    write_file(path, raw_safetensors("{" + good + "," + bad + "}", "data"));
    expect_refused(dir_.path(), ErrorCode::kBadContent, {path, "tensor second"});
}

// A sparse file costs the attacker nothing: its header may claim all it can hold.
TEST_F(Hostile, HugeSparseFile) {
    const std::string path = dir_ / "model.safetensors";
    write_file(path, length_field(100'000'000) + "{");
    std::error_code error;
    std::filesystem::resize_file(path, uint64_t{1} << 40, error);
    if (error) GTEST_SKIP() << "the file system has no sparse files of 1 TiB";
    expect_refused(dir_.path(), ErrorCode::kBadContent, {path, "NUL"});
}

TEST_F(Hostile, LongestHeaders) {
    constexpr size_t kMax = 100'000'000;
    const std::string path = dir_ / "model.safetensors";
    const auto refuse = [&](const char* label, const std::string& header, const char* says) {
        SCOPED_TRACE(label);
        write_file(path, raw_safetensors(header, ""));
        expect_refused(dir_.path(), ErrorCode::kBadContent, {path, says});
    };
    refuse("one name", "{\"" + std::string(kMax - 3, 'x') + "\"", "too long");
    refuse("blanks inside", "{" + std::string(kMax - 3, ' ') + "x", "too long");
    refuse("one number", "{\"t\":{\"shape\":[" + std::string(kMax - 20, '1'), "too long");
}

// Whatever one changed byte does to a good file, it is opened or refused: nothing else.
TEST_F(Hostile, MutatedBytes) {
    const std::string path = dir_ / "model.safetensors";
    const std::string good = testing::safetensors_bytes(
        {{"a.weight", "BF16", {3, 2}, std::string(12, 'a')}, {"b", "F32", {}, "bbbb"}});
    const size_t checked = good.size() - 16;  // length field and header
    std::mt19937 random(17);
    int refused = 0;
    for (int i = 0; i < 3000; ++i) {
        std::string bytes = good;
        for (int k = static_cast<int>(random() % 3); k >= 0; --k) {
            const size_t at = random() % checked;
            switch (random() % 4) {
                case 0:
                    bytes[at] = static_cast<char>(random());
                    break;
                case 1:
                    bytes[at] = "0123456789-.e,:[]{}\"\\"[random() % 21];
                    break;
                case 2:
                    bytes.erase(at, 1 + random() % 4);
                    break;
                case 3:
                    bytes.insert(at, bytes.substr(random() % checked, 1 + random() % 8));
                    break;
            }
        }
        write_file(path, bytes);
        try {
            const auto checkpoint = sharding::Checkpoint::open(dir_.path());
            for (const auto& t : checkpoint->tensors())
                ASSERT_LE(t.offset + t.bytes, checkpoint->files()[0].bytes);
        } catch (const Error& e) {
            ++refused;
            ASSERT_EQ(e.code(), ErrorCode::kBadContent) << e.what();
            ASSERT_NE(std::string(e.what()).find(path), std::string::npos) << e.what();
        }
    }
    EXPECT_GT(refused, 1500);
}

}  // namespace
}  // namespace conclave
