#include "runtime/engine/conformance/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "runtime/base/error.h"

namespace conclave::engine::conformance {

GuardedBytes::GuardedBytes(size_t bytes, std::byte poison, size_t alignment)
    : size_(bytes), poison_(poison) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    body_ = (bytes / page + 2) * page;  // a page or more of poison before the first byte
    mapped_ = body_ + page;
    void* const map =
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(static_cast<std::byte*>(map) + body_, page, PROT_NONE) != 0)
        throw Error(ErrorCode::kResource, "cannot map " + std::to_string(bytes) + " bytes");
    base_ = static_cast<std::byte*>(map);
    data_ = base_ + (body_ - bytes) / alignment * alignment;
    std::memset(base_, static_cast<int>(poison), body_);
}

GuardedBytes::GuardedBytes(GuardedBytes&& other) noexcept
    : base_(other.base_),
      mapped_(other.mapped_),
      body_(other.body_),
      data_(other.data_),
      size_(other.size_),
      poison_(other.poison_) {
    other.base_ = nullptr;
}

GuardedBytes::~GuardedBytes() {
    if (base_) munmap(base_, mapped_);
}

std::string GuardedBytes::written_beside() const {
    for (const std::byte* p = data_ + size_; p < base_ + body_; ++p)
        if (*p != poison_)
            return "wrote byte " + std::to_string(p - data_) + " of the " + std::to_string(size_) +
                   " that it was given";
    for (const std::byte* p = data_; p-- > base_;)
        if (*p != poison_)
            return "wrote " + std::to_string(data_ - p) + " bytes before the " +
                   std::to_string(size_) + " that it was given";
    return "";
}

}  // namespace conclave::engine::conformance
