#include "runtime/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

#include "runtime/base/error.h"

namespace conclave {
namespace {

// Linux moves at most 0x7ffff000 bytes per call.
constexpr size_t kMaxRead = size_t{1} << 30;

[[noreturn]] void throw_missing(const std::string& path, const char* what, int error) {
    const std::string reason = std::generic_category().message(error);  // strerror, thread-safe
    throw Error(ErrorCode::kMissingFile, std::string(what) + " (" + reason + ")").file(path);
}

}  // namespace

bool is_there(const std::string& path) {
    struct stat status {};
    return ::lstat(path.c_str(), &status) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

File::File(std::string path) : path_(std::move(path)) {
    // O_NONBLOCK: opening a FIFO must not wait for a writer.
    do {
        descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    } while (descriptor_ < 0 && errno == EINTR);
    if (descriptor_ < 0) throw_missing(path_, "cannot open the file", errno);
    struct stat status {};
    const int error = ::fstat(descriptor_, &status) == 0 ? 0 : errno;
    if (error != 0 || !S_ISREG(status.st_mode)) {
        ::close(descriptor_);
        descriptor_ = -1;
        if (error != 0) throw_missing(path_, "cannot open the file", error);
        throw Error(ErrorCode::kMissingFile, "not a regular file").file(path_);
    }
    size_ = static_cast<uint64_t>(status.st_size);
}

File::~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_) {}

File& File::operator=(File&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(size_, other.size_);
    return *this;
}

uint64_t File::read(uint64_t offset, std::span<std::byte> out) const {
    constexpr uint64_t kMaxOffset = std::numeric_limits<off_t>::max();
    if (offset > kMaxOffset || out.size() > kMaxOffset - offset)
        throw Error(ErrorCode::kBadContent, "position beyond any file")
            .file(path_)
            .found("byte " + std::to_string(offset));
    uint64_t calls = 0;
    size_t done = 0;
    while (done < out.size()) {
        const ssize_t got =
            ::pread(descriptor_, out.data() + done, std::min(out.size() - done, kMaxRead),
                    static_cast<off_t>(offset + done));
        ++calls;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw_missing(path_, "cannot read the file", errno);
        if (got == 0)
            throw Error(ErrorCode::kBadContent, "file is shorter than its header says")
                .file(path_)
                .expected("at least " + std::to_string(offset + out.size()) + " bytes")
                .found(std::to_string(offset + done) + " bytes or fewer");
        done += static_cast<size_t>(got);
    }
    return calls;
}

std::string File::read_whole(uint64_t max_bytes) const {
    if (size_ > max_bytes)
        throw Error(ErrorCode::kBadContent, "file is too large")
            .file(path_)
            .expected("at most " + std::to_string(max_bytes) + " bytes")
            .found(std::to_string(size_) + " bytes");
    std::string text(static_cast<size_t>(size_), '\0');
    read(0, std::as_writable_bytes(std::span(text)));
    return text;
}

}  // namespace conclave
