#include "sharding/checkpoint/safetensors_index.h"

#include "tests/fuzz/target.h"

using namespace conclave;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const fuzz::MemoryFile input(data, size);
    return fuzz::attempt([&] {
        const sharding::SafetensorsIndex index = sharding::read_safetensors_index(input.path());
        for (const std::string& name : index.files)
            CONCLAVE_CHECK(!name.empty() && name.find('/') == name.npos && name != "..");
        for (const auto& [name, file] : index.tensors)
            CONCLAVE_CHECK(file >= 0 && file < static_cast<int>(index.files.size()));
    });
}
