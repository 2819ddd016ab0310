// A checkpoint as its files state it: names, types, shapes and byte ranges of stored tensors, from
// headers alone, and positioned reads. Model files are hostile input: every size is checked.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace conclave::sharding {

/// Types that safetensors files may state; F4 is two values a byte, the rest whole bytes.
enum class StoredType : uint8_t {
    kBool,
    kF4,
    kF6E2M3,
    kF6E3M2,
    kU8,
    kI8,
    kF8E5M2,
    kF8E4M3,
    kF8E8M0,
    kI16,
    kU16,
    kF16,
    kBF16,
    kI32,
    kU32,
    kF32,
    kC64,
    kF64,
    kI64,
    kU64,
};
const char* stored_type_name(StoredType t);  ///< as the file spells it: "BF16"
int stored_type_bits(StoredType t);

struct StoredTensor {
    std::string name;
    StoredType type = StoredType::kF32;
    std::vector<int64_t> shape;
    int file = 0;         ///< index into Checkpoint::files()
    uint64_t offset = 0;  ///< of the first byte, from the start of that file
    uint64_t bytes = 0;

    std::string describe() const;  ///< "BF16 [1024, 256]"
};

struct CheckpointFile {
    std::string path;
    uint64_t bytes = 0;
    uint64_t header_hash = 0;  ///< of the header bytes, for comparing what ranks see
};

/// Bytes asked of the system so far, over all files of a checkpoint.
struct ReadCounters {
    std::atomic<uint64_t> bytes{0}, calls{0};
};

class Checkpoint {
  public:
    /// safetensors: a directory with model.safetensors.index.json or model.safetensors, or one
    /// .safetensors file. Reads headers only. Throws kMissingFile, kBadContent, kUnsupported.
    static std::shared_ptr<const Checkpoint> open(const std::string& path);

    /// A checkpoint without files, for weights that are generated.
    static std::shared_ptr<const Checkpoint> none();

    virtual ~Checkpoint() = default;
    virtual const std::vector<CheckpointFile>& files() const = 0;
    virtual const std::vector<StoredTensor>& tensors() const = 0;  ///< sorted by name
    virtual const StoredTensor* find(std::string_view name) const = 0;

    /// What a file says of itself or of a tensor under `key` (safetensors: __metadata__), nullopt
    /// where none does. Throws kBadContent where two files say different things.
    virtual std::optional<std::string> metadata(std::string_view key) const = 0;

    /// Reads [offset, offset + out.size()) of a file. Any thread. Throws kBadContent when the file
    /// has become shorter, kMissingFile when it cannot be read; both name the file.
    virtual void read(int file, uint64_t offset, std::span<std::byte> out) const = 0;
    virtual const ReadCounters& counters() const = 0;

    /// Hash over all headers, names, types, shapes, ranges and file sizes: equal on ranks that see
    /// the same.
    uint64_t fingerprint() const;
};

/// A kind of files that checkpoints are kept in.
struct CheckpointReader {
    std::string name;  ///< "safetensors"; what --load-format may say
    /// Whether the directory or file looks like one of this kind. Must not throw.
    std::function<bool(const std::string& path)> claims;
    /// Reads headers only. Throws kMissingFile, kBadContent, kUnsupported.
    std::function<std::shared_ptr<const Checkpoint>(const std::string& path)> open;
};

/// The readers of an engine, in order of registration; an ordinary object.
class CheckpointReaders {
  public:
    static CheckpointReaders built_in();
    /// Throws kUsage when the name is taken.
    void add(CheckpointReader reader);
    std::vector<std::string> names() const;
    bool has(std::string_view name) const;
    /// With the reader `asked`, or for "auto" the first that claims `path`; where none does, it is
    /// taken for safetensors. Readers are not believed: throws kInternal, naming the reader, where
    /// what it states is not so (names in order, shapes, ranges inside their files).
    std::shared_ptr<const Checkpoint> open(const std::string& path, const std::string& asked) const;

  private:
    std::vector<CheckpointReader> readers_;
};

}  // namespace conclave::sharding
