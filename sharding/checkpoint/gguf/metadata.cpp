#include "sharding/checkpoint/gguf/metadata.h"

#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace conclave::sharding {
namespace {

constexpr const char* kTypeNames[kGgufTypes] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};

const char* name_of(GgufType type) { return kTypeNames[static_cast<size_t>(type)]; }

bool is_signed(GgufType type) {
    return type == GgufType::kI8 || type == GgufType::kI16 || type == GgufType::kI32 ||
           type == GgufType::kI64;
}
bool is_float(GgufType type) { return type == GgufType::kF32 || type == GgufType::kF64; }
bool is_integer(GgufType type) {
    return !is_float(type) && type != GgufType::kBool && gguf_type_bytes(type) > 0;
}
bool is_string(GgufType type) { return type == GgufType::kString; }

std::string an_integer(int64_t min, int64_t max) {
    return fmt::format("an integer from {} to {}", min, max);
}
std::string a_float(double min, double max) {
    return fmt::format("a float from {} to {}", min, max);
}

}  // namespace

uint64_t load_little_endian(const std::byte* from, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= std::to_integer<uint64_t>(from[i]) << (8 * i);
    return value;
}

GgufMetadata::GgufMetadata(std::string file, std::vector<std::byte> bytes,
                           const std::vector<GgufPair>& pairs)
    : file_(std::move(file)), bytes_(std::move(bytes)) {
    pairs_.reserve(pairs.size());
    for (const GgufPair& pair : pairs) {
        const std::string_view key(reinterpret_cast<const char*>(bytes_.data()) + pair.key_at,
                                   pair.key_bytes);
        const auto [first, is_new] = pairs_.emplace(key, pair);
        if (!is_new) fail(key, "each key once", "it again, as " + describe(pair));
    }
}

const GgufPair* GgufMetadata::find(std::string_view key) const {
    const auto at = pairs_.find(key);
    return at == pairs_.end() ? nullptr : &at->second;
}

bool GgufMetadata::has(std::string_view key) const { return find(key) != nullptr; }

bool GgufMetadata::is_array(std::string_view key) const {
    const GgufPair* pair = find(key);
    return pair && pair->type == GgufType::kArray;
}

void GgufMetadata::fail(std::string_view key, std::string expected, std::string found) const {
    throw Error(ErrorCode::kBadContent, "GGUF key " + in_quotes(key) + " is not as it must be")
        .file(file_)
        .expected(std::move(expected))
        .found(std::move(found));
}

template <class Fits>
const GgufPair& GgufMetadata::require(std::string_view key, Fits fits,
                                      const std::string& expected) const {
    const GgufPair* pair = find(key);
    if (!pair) fail(key, expected, "no such key");
    if (!fits(pair->type)) fail(key, expected, describe(*pair));
    return *pair;
}

template <class Fits>
const GgufPair& GgufMetadata::require_array(std::string_view key, Fits fits,
                                            const std::string& kind, size_t max_count) const {
    const std::string expected = fmt::format("an array of up to {} {}", max_count, kind);
    const GgufPair& pair = require(
        key, [](GgufType type) { return type == GgufType::kArray; }, expected);
    if (!fits(pair.element) || pair.count > max_count) fail(key, expected, describe(pair));
    return pair;
}

std::string_view GgufMetadata::text_at(size_t at) const {
    const uint64_t length = load_little_endian(&bytes_[at], 8);
    return {reinterpret_cast<const char*>(bytes_.data()) + at + 8, static_cast<size_t>(length)};
}

double GgufMetadata::float_of(GgufType type, size_t at) const {
    const uint64_t raw = load_little_endian(&bytes_[at], gguf_type_bytes(type));
    return type == GgufType::kF64 ? std::bit_cast<double>(raw)
                                  : double{std::bit_cast<float>(static_cast<uint32_t>(raw))};
}

int64_t GgufMetadata::int_of(std::string_view key, GgufType type, size_t at, int64_t min,
                             int64_t max) const {
    const size_t bytes = gguf_type_bytes(type);
    const uint64_t raw = load_little_endian(&bytes_[at], bytes);
    if (!is_signed(type) && !std::in_range<int64_t>(raw))
        fail(key, an_integer(min, max), std::to_string(raw));
    const auto unused = static_cast<int>(64 - 8 * bytes);  // bits, for the sign to move
    const int64_t value =
        is_signed(type) ? static_cast<int64_t>(raw << unused) >> unused : static_cast<int64_t>(raw);
    if (value < min || value > max) fail(key, an_integer(min, max), std::to_string(value));
    return value;
}

std::string GgufMetadata::describe(const GgufPair& pair) const {
    const char* type = name_of(pair.type);
    if (pair.type == GgufType::kString) return "string " + in_quotes(text_at(pair.at));
    if (pair.type == GgufType::kArray)
        return fmt::format("array of {} {}", pair.count, name_of(pair.element));
    if (is_float(pair.type)) return fmt::format("{} {}", type, float_of(pair.type, pair.at));
    const size_t bytes = gguf_type_bytes(pair.type);
    const uint64_t raw = load_little_endian(&bytes_[pair.at], bytes);
    const auto unused = static_cast<int>(64 - 8 * bytes);
    return is_signed(pair.type)
               ? fmt::format("{} {}", type, static_cast<int64_t>(raw << unused) >> unused)
               : fmt::format("{} {}", type, raw);
}

int64_t GgufMetadata::get_int(std::string_view key, int64_t min, int64_t max) const {
    const GgufPair& pair = require(key, is_integer, an_integer(min, max));
    return int_of(key, pair.type, pair.at, min, max);
}

int64_t GgufMetadata::get_int_or(std::string_view key, int64_t fallback, int64_t min,
                                 int64_t max) const {
    return has(key) ? get_int(key, min, max) : fallback;
}

double GgufMetadata::get_float(std::string_view key, double min, double max) const {
    const GgufPair& pair = require(key, is_float, a_float(min, max));
    const double value = float_of(pair.type, pair.at);
    if (!(value >= min && value <= max)) fail(key, a_float(min, max), describe(pair));  // NaN too
    return value;
}

double GgufMetadata::get_float_or(std::string_view key, double fallback, double min,
                                  double max) const {
    return has(key) ? get_float(key, min, max) : fallback;
}

bool GgufMetadata::get_bool_or(std::string_view key, bool fallback) const {
    if (!has(key)) return fallback;
    const std::string expected = "a bool, 0 or 1";
    const GgufPair& pair = require(
        key, [](GgufType type) { return type == GgufType::kBool; }, expected);
    const uint64_t raw = load_little_endian(&bytes_[pair.at], 1);
    if (raw > 1) fail(key, expected, describe(pair));
    return raw == 1;
}

std::string GgufMetadata::get_string(std::string_view key) const {
    return std::string(text_at(require(key, is_string, "a string").at));
}

std::string GgufMetadata::get_string_or(std::string_view key, std::string_view fallback) const {
    return has(key) ? get_string(key) : std::string(fallback);
}

std::vector<int64_t> GgufMetadata::get_ints(std::string_view key, int64_t min, int64_t max,
                                            size_t max_count) const {
    const GgufPair& pair = require_array(key, is_integer, "integers", max_count);
    const size_t bytes = gguf_type_bytes(pair.element), count = static_cast<size_t>(pair.count);
    std::vector<int64_t> values(count);
    for (size_t i = 0; i < count; ++i)
        values[i] = int_of(key, pair.element, pair.at + i * bytes, min, max);
    return values;
}

std::vector<float> GgufMetadata::get_floats(std::string_view key, size_t max_count) const {
    const GgufPair& pair = require_array(key, is_float, "floats", max_count);
    const size_t bytes = gguf_type_bytes(pair.element), count = static_cast<size_t>(pair.count);
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) {
        const double value = float_of(pair.element, pair.at + i * bytes);
        if (std::isfinite(value) && std::abs(value) > double{std::numeric_limits<float>::max()})
            fail(key, "floats of 32 bits", fmt::format("{}", value));
        values[i] = static_cast<float>(value);
    }
    return values;
}

std::vector<std::string_view> GgufMetadata::get_strings(std::string_view key,
                                                        size_t max_count) const {
    const GgufPair& pair = require_array(key, is_string, "strings", max_count);
    std::vector<std::string_view> values(static_cast<size_t>(pair.count));
    size_t at = pair.at;
    for (std::string_view& value : values) {
        value = text_at(at);
        at += 8 + value.size();
    }
    return values;
}

}  // namespace conclave::sharding
