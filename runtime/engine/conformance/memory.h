// Memory that shows what is done beside it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace conclave::engine::conformance {

/// Bytes that end at a page which may not be touched, filled with a poison.
class GuardedBytes {
  public:
    /// The first byte is a multiple of `alignment` (a power of two); what that leaves between the
    /// last byte and the page is poisoned, too. Throws kResource.
    GuardedBytes(size_t bytes, std::byte poison, size_t alignment = 1);
    GuardedBytes(GuardedBytes&& other) noexcept;
    GuardedBytes& operator=(GuardedBytes&&) = delete;
    ~GuardedBytes();

    std::byte* data() { return data_; }
    const std::byte* data() const { return data_; }
    size_t size() const { return size_; }
    /// "wrote 3 bytes after the 128 that it was given", or empty: the poison before the first and
    /// after the last byte is as it was. (Pages of it lie before the first.)
    std::string written_beside() const;

  private:
    std::byte* base_ = nullptr;
    size_t mapped_ = 0, body_ = 0;
    std::byte* data_ = nullptr;
    size_t size_ = 0;
    std::byte poison_{};
};

}  // namespace conclave::engine::conformance
