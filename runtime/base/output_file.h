// A file that is written in any order, by any number of threads and processes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace conclave {

class OutputFile {
  public:
    /// Makes a file of `size` zero bytes. Throws kResource if there is one already, or no room.
    static OutputFile create(const std::string& path, uint64_t size);
    /// Opens what another process created. Throws kMissingFile if it is not there or not of `size`
    /// bytes: it is not the same file system.
    static OutputFile open(const std::string& path, uint64_t size);
    ~OutputFile();
    OutputFile(OutputFile&& other) noexcept;
    OutputFile& operator=(OutputFile&&) = delete;

    /// Throws kResource naming the file: full disk, lost mount.
    void write(uint64_t offset, std::span<const std::byte> bytes) const;
    /// Reports errors that the system has kept until now.
    void close();

  private:
    OutputFile(std::string path, int descriptor)
        : path_(std::move(path)), descriptor_(descriptor) {}
    std::string path_;
    int descriptor_ = -1;
};

/// A whole small file at once.
void write_whole_file(const std::string& path, std::string_view text);

}  // namespace conclave
