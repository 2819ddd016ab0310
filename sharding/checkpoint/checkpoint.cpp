#include <algorithm>
#include <filesystem>
#include <iterator>
#include <tuple>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/text.h"
#include "sharding/checkpoint/reader.h"
#include "sharding/checkpoint/safetensors.h"
#include "sharding/checkpoint/safetensors_index.h"

namespace conclave::sharding {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";

class SafetensorsCheckpoint final : public Checkpoint {
  public:
    explicit SafetensorsCheckpoint(const std::vector<std::string>& paths) {
        for (const std::string& path : paths) {
            const int index = static_cast<int>(handles_.size());
            const File& file = handles_.emplace_back(path);
            SafetensorsHeader header = read_safetensors_header(file, index, counters_);
            files_.push_back({path, file.size(), header.hash});
            metadata_.push_back(std::move(header.metadata));
            tensors_.insert(tensors_.end(), std::make_move_iterator(header.tensors.begin()),
                            std::make_move_iterator(header.tensors.end()));
        }
        std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) {
            return std::tie(a.name, a.file) < std::tie(b.name, b.file);
        });
        const auto twice =
            std::adjacent_find(tensors_.begin(), tensors_.end(),
                               [](const auto& a, const auto& b) { return a.name == b.name; });
        if (twice != tensors_.end())
            throw Error(ErrorCode::kBadContent, "tensor is stored twice")
                .file(path_of(*twice))
                .tensor(printable(twice->name))
                .expected("one file")
                .found("also " + path_of(*std::next(twice)));
    }

    /// Every tensor where the index says, and no other.
    void check_against(const SafetensorsIndex& index, const std::string& index_path) const {
        auto stored = tensors_.begin();
        for (const auto& [name, file] : index.tensors) {
            if (stored != tensors_.end() && stored->name < name)
                throw_unlisted(*stored, index_path);
            const std::string& path = files_[static_cast<size_t>(file)].path;
            const bool is_stored = stored != tensors_.end() && stored->name == name;
            if (!is_stored || stored->file != file)
                throw Error(ErrorCode::kBadContent,
                            "tensor is not in the file that " + index_path + " names for it")
                    .file(path)
                    .tensor(printable(name))
                    .found(is_stored ? "it in " + path_of(*stored) : "it in no file");
            ++stored;
        }
        if (stored != tensors_.end()) throw_unlisted(*stored, index_path);
    }

    const std::vector<CheckpointFile>& files() const override { return files_; }
    const std::vector<StoredTensor>& tensors() const override { return tensors_; }
    const StoredTensor* find(std::string_view name) const override {
        const auto at =
            std::lower_bound(tensors_.begin(), tensors_.end(), name,
                             [](const StoredTensor& t, std::string_view n) { return t.name < n; });
        return at != tensors_.end() && at->name == name ? &*at : nullptr;
    }
    std::optional<std::string> metadata(std::string_view key) const override {
        std::optional<std::string_view> found;
        for (size_t i = 0; i < metadata_.size(); ++i) {
            const auto text = metadata_[i].find(key);
            if (text && found && *text != *found)
                throw Error(ErrorCode::kBadContent, "files of a checkpoint contradict each other")
                    .file(files_[i].path)
                    .expected("__metadata__ of " + in_quotes(std::string(key)) +
                              " as in the files before")
                    .found(in_quotes(std::string(*text)));
            if (text) found = text;
        }
        return found ? std::optional<std::string>(*found) : std::nullopt;
    }
    void read(int file, uint64_t offset, std::span<std::byte> out) const override {
        CONCLAVE_CHECK(file >= 0 && static_cast<size_t>(file) < handles_.size());
        counted_read(handles_[static_cast<size_t>(file)], offset, out, counters_);
    }
    const ReadCounters& counters() const override { return counters_; }

  private:
    const std::string& path_of(const StoredTensor& t) const {
        return files_[static_cast<size_t>(t.file)].path;
    }
    [[noreturn]] void throw_unlisted(const StoredTensor& t, const std::string& index_path) const {
        throw Error(ErrorCode::kBadContent,
                    "tensor is in a file, but not in the weight_map of " + index_path)
            .file(path_of(t))
            .tensor(printable(t.name));
    }

    std::vector<File> handles_;
    std::vector<CheckpointFile> files_;
    std::vector<StoredTensor> tensors_;
    std::vector<Metadata> metadata_;  ///< one a file
    mutable ReadCounters counters_;
};

std::shared_ptr<const Checkpoint> open_indexed(const fs::path& directory,
                                               const std::string& index_path) {
    const SafetensorsIndex index = read_safetensors_index(index_path);
    std::vector<std::string> paths;
    for (const std::string& name : index.files) {
        const fs::path path = directory / name;
        if (!is_there(path.string()))
            throw Error(ErrorCode::kMissingFile, index_path + " names a file that is not there")
                .file(printable(path.string(), 1024));
        paths.push_back(path.string());
    }
    auto checkpoint = std::make_shared<SafetensorsCheckpoint>(paths);
    checkpoint->check_against(index, index_path);
    return checkpoint;
}

/// No files, no tensors; nothing can be read.
class EmptyCheckpoint final : public Checkpoint {
  public:
    const std::vector<CheckpointFile>& files() const override { return files_; }
    const std::vector<StoredTensor>& tensors() const override { return tensors_; }
    const StoredTensor* find(std::string_view) const override { return nullptr; }
    std::optional<std::string> metadata(std::string_view) const override { return std::nullopt; }
    void read(int, uint64_t, std::span<std::byte>) const override {
        throw Error(ErrorCode::kInternal, "read of a checkpoint without files");
    }
    const ReadCounters& counters() const override { return counters_; }

  private:
    std::vector<CheckpointFile> files_;
    std::vector<StoredTensor> tensors_;
    ReadCounters counters_;
};

}  // namespace

std::optional<uint64_t> stored_bytes(StoredType type, std::span<const int64_t> shape) {
    const StoredTypeInfo& info = kStoredTypes.at(static_cast<size_t>(type));
    if (info.block > 1 && (shape.empty() || shape.back() % info.block != 0)) return std::nullopt;
    uint64_t elements = 1, bits = 0;
    for (const int64_t extent : shape)
        if (extent < 0 ||
            __builtin_mul_overflow(elements, static_cast<uint64_t>(extent), &elements))
            return std::nullopt;
    const uint64_t blocks = elements / static_cast<uint64_t>(info.block);
    if (__builtin_mul_overflow(blocks, static_cast<uint64_t>(info.bits), &bits) || bits % 8 != 0)
        return std::nullopt;
    return bits / 8;
}

std::shared_ptr<const Checkpoint> Checkpoint::none() { return std::make_shared<EmptyCheckpoint>(); }

uint64_t Checkpoint::fingerprint() const {
    Hasher hash;
    hash.add(files().size());
    for (const CheckpointFile& f : files()) hash.add(f.bytes).add(f.header_hash);
    hash.add(tensors().size());
    for (const StoredTensor& t : tensors()) {
        hash.add(t.name).add(static_cast<int>(t.type)).add(t.shape.size());
        for (const int64_t dimension : t.shape) hash.add(dimension);
        hash.add(t.file).add(t.offset).add(t.bytes);
    }
    return hash.value();
}

std::shared_ptr<const Checkpoint> Checkpoint::open(const std::string& path) {
    if (!is_there(path))
        throw Error(ErrorCode::kMissingFile, "no such file or directory").file(path);
    std::error_code error;
    if (!fs::is_directory(path, error)) {
        if (fs::path(path).extension() != ".safetensors")
            throw Error(ErrorCode::kUnsupported, "not a checkpoint that can be read")
                .file(path)
                .expected("a directory or a .safetensors file");
        return std::make_shared<SafetensorsCheckpoint>(std::vector{path});
    }
    const fs::path directory(path);
    const fs::path index = directory / kIndexName, single = directory / kSingleName;
    if (is_there(index.string())) return open_indexed(directory, index.string());
    if (is_there(single.string()))
        return std::make_shared<SafetensorsCheckpoint>(std::vector{single.string()});
    throw Error(ErrorCode::kMissingFile, "directory holds no checkpoint")
        .file(path)
        .expected(std::string(kIndexName) + " or " + kSingleName);
}

}  // namespace conclave::sharding
