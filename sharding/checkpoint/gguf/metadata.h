// The key-value pairs of a GGUF file, as typed, range-checked values. The file is hostile input.
#pragma once
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

/// All accessors throw kBadContent naming file, key, expected and found: where a required key is
/// absent, and where a value has another type or lies outside its range. An integer may have any
/// integer type; a bool is no number, an integer no float.
class GgufMetadata {
  public:
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
};

}  // namespace conclave::sharding
