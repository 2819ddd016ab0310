// A read-only regular file with positioned reads.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace conclave {

/// Whether a directory has something of that name, be it a link that leads nowhere; if it cannot be
/// told, opening it will say why.
bool is_there(const std::string& path);

class File {
  public:
    /// Throws kMissingFile if `path` cannot be opened or is not a regular file.
    explicit File(std::string path);
    ~File();
    File(File&& other) noexcept;
    File& operator=(File&& other) noexcept;
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    const std::string& path() const { return path_; }
    uint64_t size() const { return size_; }  ///< when it was opened

    /// Fills `out` from `offset` on; any number of threads at once. Returns the number of system
    /// calls it took. Throws kBadContent if the file ends before that, kMissingFile if it cannot be
    /// read.
    uint64_t read(uint64_t offset, std::span<std::byte> out) const;

    /// All of it. Throws kBadContent, before allocating, if it is larger than `max_bytes`.
    std::string read_whole(uint64_t max_bytes) const;

  private:
    std::string path_;
    int descriptor_ = -1;
    uint64_t size_ = 0;
};

}  // namespace conclave
