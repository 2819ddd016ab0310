#include "runtime/base/json.h"

#include <cstdio>
#include <iterator>
#include <utility>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/file.h"
#include "runtime/base/text.h"

namespace conclave {
namespace {

/// What the parser has read, and how far it may go before the next event.
struct Progress {
    const JsonLimits& limits;
    size_t position = 0;
    size_t barrier = 0;

    [[noreturn]] void fail(const std::string& message) const {
        throw Error(ErrorCode::kBadContent, message + " at byte " + std::to_string(position))
            .file(limits.file);
    }
    void event() { barrier = position + limits.max_token_bytes; }
    void advance() {
        if (++position > barrier) fail("JSON token is too long");
    }
};

/// Feeds the parser byte by byte, so that Progress knows where it is.
class Cursor {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    Cursor(const char* at, Progress* progress) : at_(at), progress_(progress) {}
    reference operator*() const { return *at_; }
    Cursor& operator++() {
        ++at_;
        progress_->advance();
        return *this;
    }
    Cursor operator++(int) {
        Cursor old = *this;
        ++*this;
        return old;
    }
    bool operator==(const Cursor& other) const { return at_ == other.at_; }
    bool operator!=(const Cursor& other) const { return at_ != other.at_; }

  private:
    const char* at_;
    Progress* progress_;
};

/// Between the parser and a JsonHandler: depth, token barrier, errors.
class Guard final : public nlohmann::json_sax<Json> {
  public:
    Guard(JsonHandler& handler, Progress& progress) : handler_(handler), progress_(progress) {}

    bool null() override { return progress_.event(), handler_.on_null(), true; }
    bool boolean(bool v) override { return progress_.event(), handler_.on_bool(v), true; }
    bool number_integer(int64_t v) override { return progress_.event(), handler_.on_int(v), true; }
    bool number_unsigned(uint64_t v) override {
        return progress_.event(), handler_.on_uint(v), true;
    }
    bool number_float(double v, const std::string&) override {
        return progress_.event(), handler_.on_double(v), true;
    }
    bool string(std::string& v) override { return progress_.event(), handler_.on_string(v), true; }
    bool binary(binary_t&) override { return false; }  // not in JSON text
    bool key(std::string& k) override { return progress_.event(), handler_.on_key(k), true; }
    bool start_object(size_t) override { return enter(), handler_.on_begin_object(), true; }
    bool start_array(size_t) override { return enter(), handler_.on_begin_array(), true; }
    bool end_object() override { return leave(), handler_.on_end_object(), true; }
    bool end_array() override { return leave(), handler_.on_end_array(), true; }

    bool parse_error(size_t, const std::string&, const nlohmann::json::exception& e) override {
        std::string_view reason = e.what();
        if (const size_t start = reason.find("column "); start != reason.npos)
            if (const size_t end = reason.find(": ", start); end != reason.npos)
                reason.remove_prefix(end + 2);
        reason = reason.substr(0, reason.find("; last read"));
        progress_.fail("not valid JSON (" + printable(reason) + ")");
    }

  private:
    void enter() {
        progress_.event();
        if (++depth_ > progress_.limits.max_depth)
            progress_.fail("JSON is nested deeper than " +
                           std::to_string(progress_.limits.max_depth));
    }
    void leave() {
        progress_.event();
        --depth_;
    }

    JsonHandler& handler_;
    Progress& progress_;
    size_t depth_ = 0;
};

/// Builds a value; open_ holds the containers that are not finished yet.
class Builder final : public JsonHandler {
  public:
    explicit Builder(const std::string& file) : file_(file) {}

    void on_null() override { place(nullptr); }
    void on_bool(bool v) override { place(v); }
    void on_int(int64_t v) override { place(v); }
    void on_uint(uint64_t v) override { place(v); }
    void on_double(double v) override { place(v); }
    void on_string(std::string& v) override { place(std::move(v)); }
    void on_key(std::string& key) override {
        auto& members = open_.back()->get_ref<Json::object_t&>();
        const auto [member, is_new] = members.try_emplace(std::move(key));
        if (!is_new)
            throw Error(ErrorCode::kBadContent, "duplicate JSON key " + in_quotes(member->first) +
                                                    " at byte " + std::to_string(position()))
                .file(file_);
        member_ = &member->second;
    }
    void on_begin_object() override { open_.push_back(&place(Json::object())); }
    void on_begin_array() override { open_.push_back(&place(Json::array())); }
    void on_end_object() override { open_.pop_back(); }
    void on_end_array() override { open_.pop_back(); }

    Json take() { return std::move(root_); }

  private:
    Json& place(Json value) {
        Json* to = &root_;
        if (!open_.empty()) {
            Json& parent = *open_.back();
            to = parent.is_array() ? &parent.get_ref<Json::array_t&>().emplace_back() : member_;
        }
        *to = std::move(value);
        return *to;
    }

    const std::string& file_;
    Json root_;
    Json* member_ = nullptr;
    std::vector<Json*> open_;
};

[[noreturn]] void throw_member(std::string_view key, const std::string& expected,
                               const std::string& found, const std::string& file) {
    throw Error(ErrorCode::kBadContent, "wrong value of " + in_quotes(key))
        .file(file)
        .expected(expected)
        .found(found);
}

const Json& require(const Json& object, std::string_view key, const std::string& expected,
                    const std::string& file) {
    if (const Json* value = find_json(object, key, file)) return *value;
    throw_member(key, expected, object.contains(key) ? "null" : "no such key", file);
}

double as_double(const Json& value, std::string_view key, double min, double max,
                 const std::string& file) {
    if (value.is_number()) {
        const auto v = value.get<double>();
        if (v >= min && v <= max) return v;
    }
    throw_member(key, "a number from " + Json(min).dump() + " to " + Json(max).dump(),
                 describe_json(value), file);
}

bool as_bool(const Json& value, std::string_view key, const std::string& file) {
    if (!value.is_boolean()) throw_member(key, "true or false", describe_json(value), file);
    return value.get<bool>();
}

std::string as_string(const Json& value, std::string_view key, const std::string& file) {
    if (!value.is_string()) throw_member(key, "a string", describe_json(value), file);
    return value.get<std::string>();
}

std::string int_range(int64_t min, int64_t max) {
    return "an integer from " + std::to_string(min) + " to " + std::to_string(max);
}

}  // namespace

void read_json(std::string_view text, const JsonLimits& limits, JsonHandler& handler) {
    Progress progress{limits};
    if (text.size() > limits.max_bytes)
        throw Error(ErrorCode::kBadContent, "JSON text is too large")
            .file(limits.file)
            .expected("at most " + std::to_string(limits.max_bytes) + " bytes")
            .found(std::to_string(text.size()) + " bytes");
    // The parser takes a NUL byte for the end of its input and would ignore what follows.
    if (const size_t nul = text.find('\0'); nul != text.npos) {
        progress.position = nul;
        progress.fail("not valid JSON (NUL byte)");
    }
    progress.event();
    handler.position_ = &progress.position;
    Guard guard(handler, progress);
    const char* const end = text.data() + text.size();
    nlohmann::json::sax_parse(Cursor(text.data(), &progress), Cursor(end, &progress), &guard);
    handler.position_ = nullptr;
}

Json parse_json(std::string_view text, const JsonLimits& limits) {
    Builder builder(limits.file);
    read_json(text, limits, builder);
    return builder.take();
}

Json parse_json_file(const std::string& path, JsonLimits limits) {
    limits.file = path;
    return parse_json(File(path).read_whole(limits.max_bytes), limits);
}

std::string describe_json(const Json& value) {
    switch (value.type()) {
        case Json::value_t::object:
            return "an object of " + std::to_string(value.size()) + " members";
        case Json::value_t::array:
            return "an array of " + std::to_string(value.size());
        case Json::value_t::string:
            return in_quotes(value.get_ref<const std::string&>());
        default:
            return value.dump();  // a scalar
    }
}

const Json* find_json(const Json& object, std::string_view key, const std::string& file) {
    if (!object.is_object())
        throw Error(ErrorCode::kBadContent, "JSON value that should hold " + in_quotes(key))
            .file(file)
            .expected("an object")
            .found(describe_json(object));
    const auto member = object.find(key);
    return member == object.end() || member->is_null() ? nullptr : &*member;
}

int64_t as_int(const Json& value, std::string_view what, int64_t min, int64_t max,
               const std::string& file) {
    if (value.is_number_unsigned()) {
        const auto v = value.get<uint64_t>();
        if (std::cmp_greater_equal(v, min) && std::cmp_less_equal(v, max))
            return static_cast<int64_t>(v);
    } else if (value.is_number_integer()) {
        const auto v = value.get<int64_t>();
        if (v >= min && v <= max) return v;
    }
    throw_member(what, int_range(min, max), describe_json(value), file);
}

int64_t get_int(const Json& object, std::string_view key, int64_t min, int64_t max,
                const std::string& file) {
    return as_int(require(object, key, int_range(min, max), file), key, min, max, file);
}

int64_t get_int_or(const Json& object, std::string_view key, int64_t fallback, int64_t min,
                   int64_t max, const std::string& file) {
    const Json* value = find_json(object, key, file);
    return value ? as_int(*value, key, min, max, file) : fallback;
}

double get_double(const Json& object, std::string_view key, double min, double max,
                  const std::string& file) {
    return as_double(require(object, key, "a number", file), key, min, max, file);
}

double get_double_or(const Json& object, std::string_view key, double fallback, double min,
                     double max, const std::string& file) {
    const Json* value = find_json(object, key, file);
    return value ? as_double(*value, key, min, max, file) : fallback;
}

bool get_bool(const Json& object, std::string_view key, const std::string& file) {
    return as_bool(require(object, key, "true or false", file), key, file);
}

bool get_bool_or(const Json& object, std::string_view key, bool fallback, const std::string& file) {
    const Json* value = find_json(object, key, file);
    return value ? as_bool(*value, key, file) : fallback;
}

std::string get_string(const Json& object, std::string_view key, const std::string& file) {
    return as_string(require(object, key, "a string", file), key, file);
}

std::string get_string_or(const Json& object, std::string_view key, std::string_view fallback,
                          const std::string& file) {
    const Json* value = find_json(object, key, file);
    return value ? as_string(*value, key, file) : std::string(fallback);
}

const Json& get_object(const Json& object, std::string_view key, const std::string& file) {
    const Json& value = require(object, key, "an object", file);
    if (!value.is_object()) throw_member(key, "an object", describe_json(value), file);
    return value;
}

const Json& get_array(const Json& object, std::string_view key, const std::string& file) {
    const Json& value = require(object, key, "an array", file);
    if (!value.is_array()) throw_member(key, "an array", describe_json(value), file);
    return value;
}

}  // namespace conclave
