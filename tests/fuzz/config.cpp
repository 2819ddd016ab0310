// config.json: shape, rope and end tokens, of whichever architecture it names.
#include <cmath>

#include "runtime/engine/model.h"
#include "tests/fuzz/target.h"

using namespace conclave;

namespace {
void check(const engine::RopeSpec& rope) {
    CONCLAVE_CHECK(std::isfinite(rope.scale));
    for (const float f : rope.inv_freq) CONCLAVE_CHECK(std::isfinite(f));
}
}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz::attempt([&] {
        const Json config = parse_json(fuzz::text(data, size), {.file = "config.json"});
        fuzz::attempt([&] { check(engine::parse_rope(config, "config.json", 64, 4096)); });
        fuzz::attempt([&] { engine::eos_tokens(config, "config.json", {}, "", 1000); });
        const auto shape = engine::find_architecture(config, "config.json").shape(config, "c");
        check(shape.rope);
        CONCLAVE_CHECK(shape.layers == static_cast<int64_t>(shape.moe_layer.size()));
        CONCLAVE_CHECK(shape.heads % shape.kv_heads == 0);
        CONCLAVE_CHECK(shape.experts == 0 || shape.experts_per_token <= shape.experts);
    });
}
