#include "sharding/checkpoint/gguf/checkpoint.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/base/file.h"
#include "runtime/base/text.h"
#include "sharding/checkpoint/gguf/container.h"
#include "sharding/checkpoint/safetensors.h"

namespace conclave::sharding {
namespace {

namespace fs = std::filesystem;

constexpr const char* kExtension = ".gguf";

/// The parts of the set that a file's name says it belongs to; the file alone where it says none.
std::vector<std::string> parts_of(const std::string& path) {
    constexpr std::string_view kPattern = "-#####-of-#####.gguf";
    if (path.size() < kPattern.size()) return {path};
    const std::string_view tail = std::string_view(path).substr(path.size() - kPattern.size());
    std::array<int, 2> numbers{};
    for (size_t i = 0; i < kPattern.size(); ++i) {
        const bool is_digit = tail[i] >= '0' && tail[i] <= '9';
        if (kPattern[i] == '#' ? !is_digit : tail[i] != kPattern[i]) return {path};
        int& n = numbers[i < 6 ? 0 : 1];
        if (is_digit) n = 10 * n + (tail[i] - '0');
    }
    const auto [part, count] = numbers;
    if (part < 1 || part > count) return {path};
    const std::string stem = path.substr(0, path.size() - kPattern.size());
    std::vector<std::string> parts;
    for (int i = 1; i <= count; ++i)
        parts.push_back(fmt::format("{}-{:05}-of-{:05}{}", stem, i, count, kExtension));
    return parts;
}

/// Regular files of a directory that end so, sorted; none where it cannot be read.
std::vector<std::string> files_ending(const std::string& directory, const char* extension) {
    std::vector<std::string> found;
    std::error_code error;
    for (fs::directory_iterator at(directory, error), end; !error && at != end;
         at.increment(error)) {
        std::error_code none;
        if (at->path().extension() == extension && at->is_regular_file(none))
            found.push_back(at->path().string());
    }
    std::sort(found.begin(), found.end());
    return found;
}

/// The files to open for a file or directory.
std::vector<std::string> choose_files(const std::string& path) {
    std::error_code error;
    if (!fs::is_directory(path, error)) return parts_of(path);
    std::set<std::string> firsts;
    for (const std::string& file : files_ending(path, kExtension))
        firsts.insert(parts_of(file).front());
    if (firsts.empty())
        throw Error(ErrorCode::kMissingFile, "directory holds no checkpoint")
            .file(path)
            .expected("a .gguf file");
    if (firsts.size() == 1) return parts_of(*firsts.begin());
    std::string names;
    for (const std::string& first : firsts)
        names += (names.empty() ? "" : ", ") + fs::path(first).filename().string();
    throw Error(ErrorCode::kBadContent,
                "directory holds several GGUF models; name one of the files")
        .file(path)
        .expected("one, or the parts of one")
        .found(printable(names, 1000));
}

class GgufCheckpoint final : public Checkpoint {
  public:
    explicit GgufCheckpoint(const std::vector<std::string>& paths) {
        contents_.path = paths.front();
        for (const std::string& path : paths) {
            if (paths.size() > 1 && !is_there(path))
                throw Error(ErrorCode::kMissingFile, "part of a split GGUF checkpoint is not there")
                    .file(path)
                    .expected(fmt::format("all {} parts", paths.size()));
            const File& file = handles_.emplace_back(path);
            const int index = static_cast<int>(files_.size());
            GgufHeader header = read_gguf_header(file, index, counters_);
            files_.push_back({path, file.size(), header.hash});
            check_part(header.metadata, paths.size());
            if (index == 0) contents_.metadata = std::move(header.metadata);
            contents_.tensors.insert(contents_.tensors.end(),
                                     std::make_move_iterator(header.tensors.begin()),
                                     std::make_move_iterator(header.tensors.end()));
        }
        if (paths.size() > 1) check_set();
        contents_.read = [this](const GgufTensor& t, std::span<std::byte> out) {
            CONCLAVE_CHECK(out.size() == t.bytes);
            read(t.file, t.offset, out);
        };
        tensors_ = hugging_face_tensors(contents_);
    }

    const std::vector<CheckpointFile>& files() const override { return files_; }
    const std::vector<StoredTensor>& tensors() const override { return tensors_; }
    const StoredTensor* find(std::string_view name) const override {
        const auto at =
            std::lower_bound(tensors_.begin(), tensors_.end(), name,
                             [](const StoredTensor& t, std::string_view n) { return t.name < n; });
        return at != tensors_.end() && at->name == name ? &*at : nullptr;
    }
    std::optional<std::string> metadata(std::string_view) const override { return std::nullopt; }
    std::optional<std::string> document(std::string_view name) const override {
        return gguf_document(contents_, name);
    }
    void read(int file, uint64_t offset, std::span<std::byte> out) const override {
        CONCLAVE_CHECK(file >= 0 && static_cast<size_t>(file) < handles_.size());
        counted_read(handles_[static_cast<size_t>(file)], offset, out, counters_);
    }
    const ReadCounters& counters() const override { return counters_; }

  private:
    /// That the file read last is the part that its name says. A merged file keeps a count of 0.
    void check_part(const GgufMetadata& metadata, size_t parts) const {
        const auto wrong = [&](const char* key, std::string expected, int64_t found) {
            return std::move(Error(ErrorCode::kBadContent,
                                   fmt::format("GGUF key \"{}\" contradicts the file's name", key))
                                 .file(files_.back().path)
                                 .expected(std::move(expected))
                                 .found(std::to_string(found)));
        };
        constexpr int64_t kMost = 65535;
        if (parts == 1) {
            const int64_t count = metadata.get_int_or("split.count", 0, 0, kMost);
            if (count > 1)
                throw wrong("split.count",
                            fmt::format("1, or a name like NAME-00001-of-{:05}.gguf "
                                        "beside the other parts",
                                        count),
                            count);
            return;
        }
        const auto expected = static_cast<int64_t>(parts);
        const auto index = static_cast<int64_t>(files_.size()) - 1;
        const int64_t count = metadata.get_int("split.count", 0, kMost);
        if (count != expected) throw wrong("split.count", std::to_string(expected), count);
        const int64_t number = metadata.get_int("split.no", 0, kMost);
        if (number != index) throw wrong("split.no", std::to_string(index), number);
    }

    /// That the parts are all of one whole, with no tensor in two of them.
    void check_set() const {
        const int64_t total = contents_.metadata.get_int("split.tensors.count", 0,
                                                         std::numeric_limits<int32_t>::max());
        if (static_cast<size_t>(total) != contents_.tensors.size())
            throw Error(ErrorCode::kBadContent,
                        "parts do not hold what \"split.tensors.count\" says")
                .file(contents_.path)
                .expected(fmt::format("{} tensors", total))
                .found(std::to_string(contents_.tensors.size()));
        std::vector<const GgufTensor*> order;
        for (const GgufTensor& t : contents_.tensors) order.push_back(&t);
        std::sort(order.begin(), order.end(), [](const GgufTensor* a, const GgufTensor* b) {
            return std::pair<const std::string&, int>(a->name, a->file) <
                   std::pair<const std::string&, int>(b->name, b->file);
        });
        const auto twice = std::adjacent_find(
            order.begin(), order.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->name == b->name; });
        if (twice == order.end()) return;
        throw Error(ErrorCode::kBadContent, "tensor is stored twice")
            .file(files_[static_cast<size_t>((*twice)->file)].path)
            .tensor(printable((*twice)->name))
            .expected("one file")
            .found("also " + files_[static_cast<size_t>((*std::next(twice))->file)].path);
    }

    std::vector<File> handles_;
    std::vector<CheckpointFile> files_;
    GgufContents contents_;
    std::vector<StoredTensor> tensors_;
    mutable ReadCounters counters_;
};

}  // namespace

bool looks_like_gguf(const std::string& path) {
    std::error_code error;
    if (fs::is_directory(path, error))
        return files_ending(path, ".safetensors").empty() &&
               !files_ending(path, kExtension).empty();
    if (!fs::is_regular_file(path, error)) return false;
    if (fs::path(path).extension() == kExtension) return true;
    std::array<char, 4> start{};
    std::ifstream(path, std::ios::binary).read(start.data(), start.size());
    return std::string_view(start.data(), start.size()) == "GGUF";
}

std::shared_ptr<const Checkpoint> open_gguf(const std::string& path) {
    if (!is_there(path))
        throw Error(ErrorCode::kMissingFile, "no such file or directory").file(path);
    return std::make_shared<GgufCheckpoint>(choose_files(path));
}

}  // namespace conclave::sharding
