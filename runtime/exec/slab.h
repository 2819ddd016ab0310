// Memory for weights and KV: 2 MiB pages where they are to be had, not yet touched, so that the
// thread that first writes a page decides its NUMA node.
#pragma once
#include <cstddef>

namespace conclave::exec {

enum class PageKind {
    kHugeTlb,      ///< from the hugetlbfs pool
    kTransparent,  ///< madvise(MADV_HUGEPAGE) was accepted
    kSmall,        ///< 4 KiB pages: neither was to be had
};
const char* page_kind_name(PageKind kind);

/// An anonymous private mapping, 2 MiB aligned, zero-filled, owned. Throws kResource.
class Slab {
  public:
    Slab() = default;
    explicit Slab(size_t bytes);
    ~Slab();
    Slab(Slab&& other) noexcept;
    Slab& operator=(Slab&& other) noexcept;

    std::byte* data() const { return data_; }
    size_t bytes() const { return bytes_; }
    PageKind pages() const { return pages_; }

  private:
    std::byte* data_ = nullptr;
    size_t bytes_ = 0, mapped_ = 0;
    PageKind pages_ = PageKind::kSmall;
};

}  // namespace conclave::exec
