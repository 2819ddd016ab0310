#include "runtime/base/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "runtime/base/error.h"

namespace conclave {
namespace {

constexpr size_t kMaxWrite = size_t{1} << 30;  // Linux moves at most 0x7ffff000 bytes per call

[[noreturn]] void throw_failed(const std::string& path, const char* what, int error) {
    throw Error(ErrorCode::kResource,
                std::string(what) + " (" + std::generic_category().message(error) + ")")
        .file(path);
}

}  // namespace

OutputFile OutputFile::create(const std::string& path, uint64_t size) {
    const int d = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (d < 0) throw_failed(path, "cannot create the file", errno);
    OutputFile file(path, d);
    // Room is claimed now where the file system can, so that a full disk is known before the work.
    const int full = size > 0 ? ::posix_fallocate(d, 0, static_cast<off_t>(size)) : 0;
    if (full == ENOSPC || full == EFBIG || full == EDQUOT)
        throw_failed(path, "cannot make room for the file", full);
    if (::ftruncate(d, static_cast<off_t>(size)) != 0)
        throw_failed(path, "cannot size the file", errno);
    return file;
}

OutputFile OutputFile::open(const std::string& path, uint64_t size) {
    const int d = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (d < 0)
        throw Error(ErrorCode::kMissingFile,
                    "rank 0 has created this file and it is not seen here: the folder must be on a "
                    "file system that all ranks share")
            .file(path);
    OutputFile file(path, d);
    struct stat status {};
    if (::fstat(d, &status) != 0 || static_cast<uint64_t>(status.st_size) != size)
        throw Error(ErrorCode::kMissingFile,
                    "this is not the file that rank 0 has created: the folder must be on a file "
                    "system that all ranks share")
            .file(path)
            .expected(std::to_string(size) + " bytes")
            .found(std::to_string(status.st_size));
    return file;
}

OutputFile::~OutputFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

void OutputFile::write(uint64_t offset, std::span<const std::byte> bytes) const {
    for (size_t done = 0; done < bytes.size();) {
        const ssize_t put =
            ::pwrite(descriptor_, bytes.data() + done, std::min(bytes.size() - done, kMaxWrite),
                     static_cast<off_t>(offset + done));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) throw_failed(path_, "cannot write the file", put < 0 ? errno : ENOSPC);
        done += static_cast<size_t>(put);
    }
}

void OutputFile::close() {
    if (::close(std::exchange(descriptor_, -1)) != 0)
        throw_failed(path_, "cannot write the file", errno);
}

void write_whole_file(const std::string& path, std::string_view text) {
    OutputFile file = OutputFile::create(path, text.size());
    file.write(0, std::as_bytes(std::span(text.data(), text.size())));
    file.close();
}

}  // namespace conclave
