// Memory that several processes of one host map. It has a name only from create() until
// remove_name(), so nothing stays behind when the processes end, however they end.
#pragma once
#include <cstddef>
#include <string>

namespace conclave::comm {

class SharedMemory {
  public:
    SharedMemory() = default;
    ~SharedMemory();
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    /// Zeroed, and really there: throws kResource where the host has no room, instead of a signal
    /// at the first touch.
    void create(size_t bytes);
    void open(const std::string& name, size_t bytes);
    void remove_name() noexcept;

    const std::string& name() const { return name_; }
    std::byte* data() const { return data_; }

  private:
    void map(int file, size_t bytes);

    std::string name_;  // empty: no name to remove
    std::byte* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace conclave::comm
