#include "runtime/comm/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "runtime/base/error.h"

namespace conclave::comm {
namespace {

Error system_error(const char* what, size_t bytes, int code) {
    return Error(ErrorCode::kResource, std::string(what) + " of " + std::to_string(bytes) +
                                           " bytes failed: " + std::strerror(code));
}

std::string fresh_name() {
    std::random_device random;
    return "/conclave-" + std::to_string(getpid()) + "-" + std::to_string(random());
}

}  // namespace

SharedMemory::~SharedMemory() {
    remove_name();
    if (data_ != nullptr) munmap(data_, bytes_);
}

void SharedMemory::create(size_t bytes) {
    int file = -1;
    for (int attempt = 0; file < 0 && attempt < 16; ++attempt) {
        name_ = fresh_name();
        file = shm_open(name_.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
        if (file < 0 && errno != EEXIST) break;
    }
    if (file < 0) {
        const int code = errno;
        name_.clear();
        throw system_error("creating shared memory", bytes, code);
    }
    const int code = posix_fallocate(file, 0, static_cast<off_t>(bytes));
    if (code != 0) {
        close(file);
        remove_name();
        throw system_error("creating shared memory (/dev/shm)", bytes, code);
    }
    map(file, bytes);
}

void SharedMemory::open(const std::string& name, size_t bytes) {
    const int file = shm_open(name.c_str(), O_RDWR, 0);
    if (file < 0) throw system_error("opening another rank's shared memory", bytes, errno);
    map(file, bytes);
}

void SharedMemory::map(int file, size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    const int code = errno;
    close(file);
    if (at == MAP_FAILED) throw system_error("mapping shared memory", bytes, code);
    data_ = static_cast<std::byte*>(at);
    bytes_ = bytes;
}

void SharedMemory::remove_name() noexcept {
    if (!name_.empty()) shm_unlink(name_.c_str());
    name_.clear();
}

}  // namespace conclave::comm
