#include "runtime/engine/model_config.h"
#include "tests/fuzz/target.h"

using namespace conclave;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz::attempt([&] {
        const Json json = parse_json(fuzz::text(data, size), {.file = "generation_config.json"});
        for (const int32_t id : engine::eos_tokens(Json::object(), "config.json", json, "g", 1000))
            CONCLAVE_CHECK(id >= 0 && id < 1000);
    });
}
