// What is read from JSON does not change when it is written and read again.
#include "runtime/base/json.h"

#include "tests/fuzz/target.h"

using namespace conclave;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz::attempt([&] {
        const JsonLimits limits{.file = "f", .max_bytes = 1 << 20, .max_depth = 32};
        const Json value = parse_json(fuzz::text(data, size), limits);
        CONCLAVE_CHECK(!describe_json(value).empty());
        CONCLAVE_CHECK(parse_json(value.dump(), {.file = "g"}) == value);
        if (!value.is_object()) return;
        for (const auto& member : value.items()) {
            const std::string& key = member.key();
            fuzz::attempt([&] { get_int(value, key, -5, 5, "f"); });
            fuzz::attempt([&] { get_double(value, key, -5, 5, "f"); });
            fuzz::attempt([&] { get_string(value, key, "f"); });
        }
    });
}
