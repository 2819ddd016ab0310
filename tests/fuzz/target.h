// What the fuzz targets share: the contract of every parser of hostile bytes.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "runtime/base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace conclave::fuzz {

inline std::string_view text(const uint8_t* data, size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

/// Runs `parse`, which may return, or throw an Error that blames the input. Any other exception, a
/// broken invariant of ours included, is a find.
template <class Parse>
int attempt(Parse&& parse) {
    try {
        parse();
    } catch (const Error& e) {
        if (e.code() != ErrorCode::kInternal) return 0;
        std::fprintf(stderr, "internal error: %s\n", e.what());
        std::abort();
    }
    return 0;
}

/// A file in memory that holds the input.
class MemoryFile {
  public:
    MemoryFile(const uint8_t* data, size_t size) : descriptor_(::memfd_create("input", 0)) {
        if (descriptor_ < 0 || ::write(descriptor_, data, size) != static_cast<ssize_t>(size))
            std::abort();
    }
    ~MemoryFile() { ::close(descriptor_); }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;

    std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

  private:
    int descriptor_;
};

}  // namespace conclave::fuzz
