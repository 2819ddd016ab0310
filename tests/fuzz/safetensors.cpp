#include "sharding/checkpoint/safetensors.h"
#include "tests/fuzz/target.h"

using namespace conclave;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const fuzz::MemoryFile input(data, size);
    return fuzz::attempt([&] {
        const File file(input.path());
        sharding::ReadCounters counters;
        for (const auto& t : sharding::read_safetensors_header(file, 0, counters).tensors) {
            const bool inside = t.offset <= file.size() && t.bytes <= file.size() - t.offset;
            CONCLAVE_CHECK(inside && !t.describe().empty());
        }
    });
}
