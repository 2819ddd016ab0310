// The key-value pairs of a GGUF file, as typed, range-checked values. The file is hostile input.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace conclave::sharding {

/// As files number them.
enum class GgufType : uint32_t {
    kU8,
    kI8,
    kU16,
    kI16,
    kU32,
    kI32,
    kF32,
    kBool,
    kString,
    kArray,
    kU64,
    kI64,
    kF64,
};
constexpr uint32_t kGgufTypes = 13;
/// Bytes of a value; 0 where that differs from value to value.
constexpr size_t gguf_type_bytes(GgufType type) {
    constexpr size_t kBytes[kGgufTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return kBytes[static_cast<size_t>(type)];
}

/// An integer of `bytes` bytes, low first.
uint64_t load_little_endian(const std::byte* from, size_t bytes);

/// Where a pair lies in a header.
struct GgufPair {
    size_t key_at = 0, key_bytes = 0;
    GgufType type = GgufType::kU8;
    GgufType element = GgufType::kU8;  ///< of an array
    uint64_t count = 1;                ///< of an array
    size_t at = 0;                     ///< of the value; an array's: of its first element
};

/// All accessors throw kBadContent naming file, key, expected and found: where a required key is
/// absent, and where a value has another type or lies outside its range. An integer may have any
/// integer type; a bool is no number, an integer no float.
class GgufMetadata {
  public:
    GgufMetadata() = default;
    /// `bytes` hold every key and value of `pairs` to its end. Throws kBadContent where a key is
    /// there twice. Costs what `bytes` and an entry for each pair take: arrays stay where they are.
    GgufMetadata(std::string file, std::vector<std::byte> bytes,
                 const std::vector<GgufPair>& pairs);
    GgufMetadata(GgufMetadata&&) = default;
    GgufMetadata& operator=(GgufMetadata&&) = default;
    GgufMetadata(const GgufMetadata&) = delete;
    GgufMetadata& operator=(const GgufMetadata&) = delete;

    bool has(std::string_view key) const;

    int64_t get_int(std::string_view key, int64_t min, int64_t max) const;
    int64_t get_int_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
    double get_float(std::string_view key, double min, double max) const;
    double get_float_or(std::string_view key, double fallback, double min, double max) const;
    bool get_bool_or(std::string_view key, bool fallback) const;
    std::string get_string(std::string_view key) const;
    std::string get_string_or(std::string_view key, std::string_view fallback) const;
    /// Arrays; each element as the scalar of that kind. `max_count`: more elements are refused.
    std::vector<int64_t> get_ints(std::string_view key, int64_t min, int64_t max,
                                  size_t max_count) const;
    std::vector<float> get_floats(std::string_view key, size_t max_count) const;
    /// Views into the metadata, which must outlive them. Any bytes.
    std::vector<std::string_view> get_strings(std::string_view key, size_t max_count) const;
    bool is_array(std::string_view key) const;  ///< false where absent

  private:
    const GgufPair* find(std::string_view key) const;
    /// The pair of a required key, of one of the types that `fits` takes.
    template <class Fits>
    const GgufPair& require(std::string_view key, Fits fits, const std::string& expected) const;
    template <class Fits>
    const GgufPair& require_array(std::string_view key, Fits fits, const std::string& kind,
                                  size_t max_count) const;
    int64_t int_of(std::string_view key, GgufType type, size_t at, int64_t min, int64_t max) const;
    double float_of(GgufType type, size_t at) const;
    std::string_view text_at(size_t at) const;
    std::string describe(const GgufPair& pair) const;
    [[noreturn]] void fail(std::string_view key, std::string expected, std::string found) const;

    std::string file_;
    std::vector<std::byte> bytes_;
    std::unordered_map<std::string_view, GgufPair> pairs_;  ///< keys are views into bytes_
};

}  // namespace conclave::sharding
