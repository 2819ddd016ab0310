#include "runtime/exec/slab.h"

#include <linux/mman.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>

#include "runtime/base/error.h"

namespace conclave::exec {
namespace {

constexpr size_t kHuge = size_t{2} << 20;

Error no_memory(size_t bytes, const std::string& why) {
    return Error(ErrorCode::kResource,
                 "cannot map " + std::to_string(bytes) + " bytes of memory: " + why);
}

/// nullptr on failure. Without MAP_NORESERVE: a machine that counts its commitments refuses here,
/// not in the middle of loading.
std::byte* map(size_t bytes, int flags) {
    void* p =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    return p == MAP_FAILED ? nullptr : static_cast<std::byte*>(p);
}

/// The file reads "always [madvise] never"; absent where the kernel has no such pages.
bool transparent_pages_allowed() {
    std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    return !text.empty() && text.find("[never]") == std::string::npos;
}

}  // namespace

const char* page_kind_name(PageKind kind) {
    switch (kind) {
        case PageKind::kHugeTlb:
            return "2 MiB pages (hugetlbfs)";
        case PageKind::kTransparent:
            return "2 MiB pages (transparent)";
        case PageKind::kSmall:
            return "4 KiB pages";
    }
    return "?";
}

Slab::Slab(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    if (bytes > SIZE_MAX - 2 * kHuge) throw no_memory(bytes, "more than the address space");
    mapped_ = (bytes + kHuge - 1) / kHuge * kHuge;
    // Reserved from the pool at once; fails where the pool is too small or empty.
    if ((data_ = map(mapped_, MAP_HUGETLB | MAP_HUGE_2MB)) != nullptr) {
        pages_ = PageKind::kHugeTlb;
        return;
    }
    std::byte* raw = map(mapped_ + kHuge, 0);
    if (raw == nullptr) throw no_memory(bytes, std::generic_category().message(errno));
    const size_t head = -reinterpret_cast<uintptr_t>(raw) % kHuge;
    if (head != 0) munmap(raw, head);
    munmap(raw + head + mapped_, kHuge - head);
    data_ = raw + head;
    if (transparent_pages_allowed() && madvise(data_, mapped_, MADV_HUGEPAGE) == 0)
        pages_ = PageKind::kTransparent;
}

Slab::~Slab() {
    if (data_ != nullptr) munmap(data_, mapped_);
}

Slab::Slab(Slab&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      mapped_(std::exchange(other.mapped_, 0)),
      pages_(std::exchange(other.pages_, PageKind::kSmall)) {}

Slab& Slab::operator=(Slab&& other) noexcept {
    Slab taken(std::move(other));
    std::swap(data_, taken.data_);
    std::swap(bytes_, taken.bytes_);
    std::swap(mapped_, taken.mapped_);
    std::swap(pages_, taken.pages_);
    return *this;
}

}  // namespace conclave::exec
