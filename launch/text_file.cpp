#include "launch/text_file.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "runtime/base/error.h"

namespace conclave::launch {
namespace {

constexpr size_t kMostBytes = size_t{64} << 20;  // as the tokenizer takes

}  // namespace

std::string read_text(const std::string& path, const std::string& what) {
    const auto refuse = [&] {
        throw Error(ErrorCode::kMissingFile,
                    "cannot read " + what + ": " + std::string(std::strerror(errno)))
            .file(path);
    };
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                               &std::fclose);
    if (!file) refuse();
    std::string text;
    std::array<char, 1 << 16> part;
    while (const size_t n = std::fread(part.data(), 1, part.size(), file.get())) {
        text.append(part.data(), n);
        if (text.size() > kMostBytes)
            throw Error(ErrorCode::kUsage, what + " is too long")
                .file(path)
                .expected("at most " + std::to_string(kMostBytes) + " bytes");
    }
    if (std::ferror(file.get())) refuse();
    return text;
}

}  // namespace conclave::launch
