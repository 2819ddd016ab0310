// A checkpoint as its files state it: names, types, shapes and byte ranges of stored tensors, from
// headers alone, and positioned reads. Model files are hostile input: every size is checked.
#pragma once
#include <array>
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
struct StoredTypeInfo {
    StoredType type;
    const char* name;  ///< as safetensors files spell it: "BF16"
    int bits;
};
/// In the order of StoredType.
inline constexpr std::array<StoredTypeInfo, 20> kStoredTypes = {{
    {StoredType::kBool, "BOOL", 8},      {StoredType::kF4, "F4", 4},
    {StoredType::kF6E2M3, "F6_E2M3", 6}, {StoredType::kF6E3M2, "F6_E3M2", 6},
    {StoredType::kU8, "U8", 8},          {StoredType::kI8, "I8", 8},
    {StoredType::kF8E5M2, "F8_E5M2", 8}, {StoredType::kF8E4M3, "F8_E4M3", 8},
    {StoredType::kF8E8M0, "F8_E8M0", 8}, {StoredType::kI16, "I16", 16},
    {StoredType::kU16, "U16", 16},       {StoredType::kF16, "F16", 16},
    {StoredType::kBF16, "BF16", 16},     {StoredType::kI32, "I32", 32},
    {StoredType::kU32, "U32", 32},       {StoredType::kF32, "F32", 32},
    {StoredType::kC64, "C64", 64},       {StoredType::kF64, "F64", 64},
    {StoredType::kI64, "I64", 64},       {StoredType::kU64, "U64", 64},
}};
inline const char* stored_type_name(StoredType t) {
    return kStoredTypes.at(static_cast<size_t>(t)).name;
}
inline int stored_type_bits(StoredType t) { return kStoredTypes.at(static_cast<size_t>(t)).bits; }

struct StoredTensor {
    std::string name;
    StoredType type = StoredType::kF32;
    std::vector<int64_t> shape;
    int file = 0;         ///< index into Checkpoint::files()
    uint64_t offset = 0;  ///< of the first byte, from the start of that file
    uint64_t bytes = 0;

    /// "BF16 [1024, 256]"
    std::string describe() const {
        std::string text = std::string(stored_type_name(type)) + " [";
        for (size_t i = 0; i < shape.size(); ++i)
            text += (i ? ", " : "") + std::to_string(shape[i]);
        return text + "]";
    }
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
