#include "sharding/checkpoint/gguf/checkpoint.h"
#include "sharding/checkpoint/gguf/container.h"
#include "tests/fuzz/target.h"

using namespace conclave;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const fuzz::MemoryFile input(data, size);
    fuzz::attempt([&] {
        const File file(input.path());
        sharding::ReadCounters counters;
        const auto m = sharding::read_gguf_header(file, 0, counters).metadata;
        constexpr size_t kMost = 1 << 20;
        for (const char* key : {"k", "general.alignment", "tokenizer.ggml.tokens"}) {
            fuzz::attempt([&] { m.get_int(key, -5, 5); });
            fuzz::attempt([&] { m.get_float(key, -5, 5); });
            fuzz::attempt([&] { m.get_bool_or(key, true); });
            fuzz::attempt([&] { m.get_string(key); });
            fuzz::attempt([&] { m.get_ints(key, 0, 1 << 30, kMost); });
            fuzz::attempt([&] { m.get_floats(key, kMost); });
            fuzz::attempt([&] {
                size_t bytes = 0;
                for (const auto text : m.get_strings(key, kMost)) bytes += text.size();
                CONCLAVE_CHECK(bytes <= file.size());
            });
        }
    });
    return fuzz::attempt([&] {
        const auto checkpoint = sharding::open_gguf(input.path());
        const sharding::StoredTensor* before = nullptr;
        for (const auto& t : checkpoint->tensors()) {
            const auto bytes = sharding::stored_bytes(t.type, t.shape);
            CONCLAVE_CHECK(bytes && *bytes == t.bytes);
            CONCLAVE_CHECK(t.offset <= size && t.bytes <= size - t.offset);
            CONCLAVE_CHECK(!before || before->name < t.name);
            before = &t;
        }
        for (const char* name : {"config.json", "generation_config.json", "tokenizer.json",
                                 "tokenizer_config.json", "chat_template.jinja"})
            fuzz::attempt([&] { checkpoint->document(name); });
    });
}
