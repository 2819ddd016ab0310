// JSON from files and requests, which is hostile input: size, depth and token length are bounded
// before memory is spent, duplicate keys and invalid UTF-8 are refused, numbers are range-checked.
#pragma once
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace conclave {

using Json = nlohmann::json;

struct JsonLimits {
    std::string file;                           ///< named in errors
    size_t max_bytes = size_t{64} << 20;        ///< of the whole text
    size_t max_depth = 64;                      ///< of nested arrays and objects
    size_t max_token_bytes = size_t{16} << 20;  ///< of one string, number or run of blanks
};

/// Receives the parts of a text in order. Strings may be moved from. Throw to stop.
class JsonHandler {
  public:
    virtual ~JsonHandler() = default;
    virtual void on_null() = 0;
    virtual void on_bool(bool value) = 0;
    virtual void on_int(int64_t value) = 0;    ///< written with a minus sign (-0 too)
    virtual void on_uint(uint64_t value) = 0;  ///< any other integer below 2^64
    virtual void on_double(double value) = 0;  ///< any other number; finite
    virtual void on_string(std::string& value) = 0;
    virtual void on_key(std::string& key) = 0;
    virtual void on_begin_object() = 0;
    virtual void on_end_object() = 0;
    virtual void on_begin_array() = 0;
    virtual void on_end_array() = 0;

    size_t position() const { return position_ ? *position_ : 0; }  ///< bytes read so far

  private:
    friend void read_json(std::string_view, const JsonLimits&, JsonHandler&);
    const size_t* position_ = nullptr;
};

/// Streams `text` to `handler`. Throws kBadContent naming file and byte position; duplicate keys
/// are the handler's business.
void read_json(std::string_view text, const JsonLimits& limits, JsonHandler& handler);

/// The whole text as one value; duplicate keys are refused.
Json parse_json(std::string_view text, const JsonLimits& limits);

/// parse_json of a whole file; limits.file is set to `path`.
Json parse_json_file(const std::string& path, JsonLimits limits = {});

/// For messages: type and, where short, value. Never dump(), which recurses.
std::string describe_json(const Json& value);

/// `key` of `object`; nullptr where absent or null. Throws kBadContent if `object` is no object.
const Json* find_json(const Json& object, std::string_view key, const std::string& file);

// Typed members. All throw kBadContent naming file, key, expected and found. Those without a
// default require the key; for the others null counts as absent. A bool is not a number; 1.0 and
// 2^64 are not integers.
int64_t get_int(const Json& object, std::string_view key, int64_t min, int64_t max,
                const std::string& file);
int64_t get_int_or(const Json& object, std::string_view key, int64_t fallback, int64_t min,
                   int64_t max, const std::string& file);
double get_double(const Json& object, std::string_view key, double min, double max,
                  const std::string& file);
double get_double_or(const Json& object, std::string_view key, double fallback, double min,
                     double max, const std::string& file);
bool get_bool(const Json& object, std::string_view key, const std::string& file);
bool get_bool_or(const Json& object, std::string_view key, bool fallback, const std::string& file);
std::string get_string(const Json& object, std::string_view key, const std::string& file);
std::string get_string_or(const Json& object, std::string_view key, std::string_view fallback,
                          const std::string& file);
const Json& get_object(const Json& object, std::string_view key, const std::string& file);
const Json& get_array(const Json& object, std::string_view key, const std::string& file);

/// `value` itself as an integer in [min, max]; `what` names it in errors, as a key would.
int64_t as_int(const Json& value, std::string_view what, int64_t min, int64_t max,
               const std::string& file);

}  // namespace conclave
