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

/// Types of stored elements: those that safetensors files may state, then GGUF's blocks. F4 is two
/// values a byte, the rest of the first are whole bytes.
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
    kQ4_0,
    kQ4_1,
    kQ5_0,
    kQ5_1,
    kQ8_0,
    kQ2_K,
    kQ3_K,
    kQ4_K,
    kQ5_K,
    kQ6_K,
    kIQ2_XXS,
    kIQ2_XS,
    kIQ2_S,
    kIQ3_XXS,
    kIQ3_S,
    kIQ1_S,
    kIQ1_M,
    kIQ4_NL,
    kIQ4_XS,
    kTQ1_0,
    kTQ2_0,
    kMXFP4,
    kNVFP4,
    kQ1_0,
    kQ2_0,
};
struct StoredTypeInfo {
    StoredType type;
    const char* name;  ///< as files (GGUF: its tools) spell it: "BF16", "Q4_K"
    int bits;          ///< of a block
    int block = 1;     ///< elements along the last axis that are stored together
};
/// The first so many are safetensors'.
constexpr size_t kSafetensorsTypes = 20;
/// In the order of StoredType.
inline constexpr std::array<StoredTypeInfo, 45> kStoredTypes = {{
    {StoredType::kBool, "BOOL", 8},
    {StoredType::kF4, "F4", 4},
    {StoredType::kF6E2M3, "F6_E2M3", 6},
    {StoredType::kF6E3M2, "F6_E3M2", 6},
    {StoredType::kU8, "U8", 8},
    {StoredType::kI8, "I8", 8},
    {StoredType::kF8E5M2, "F8_E5M2", 8},
    {StoredType::kF8E4M3, "F8_E4M3", 8},
    {StoredType::kF8E8M0, "F8_E8M0", 8},
    {StoredType::kI16, "I16", 16},
    {StoredType::kU16, "U16", 16},
    {StoredType::kF16, "F16", 16},
    {StoredType::kBF16, "BF16", 16},
    {StoredType::kI32, "I32", 32},
    {StoredType::kU32, "U32", 32},
    {StoredType::kF32, "F32", 32},
    {StoredType::kC64, "C64", 64},
    {StoredType::kF64, "F64", 64},
    {StoredType::kI64, "I64", 64},
    {StoredType::kU64, "U64", 64},
    {StoredType::kQ4_0, "Q4_0", 18 * 8, 32},
    {StoredType::kQ4_1, "Q4_1", 20 * 8, 32},
    {StoredType::kQ5_0, "Q5_0", 22 * 8, 32},
    {StoredType::kQ5_1, "Q5_1", 24 * 8, 32},
    {StoredType::kQ8_0, "Q8_0", 34 * 8, 32},
    {StoredType::kQ2_K, "Q2_K", 84 * 8, 256},
    {StoredType::kQ3_K, "Q3_K", 110 * 8, 256},
    {StoredType::kQ4_K, "Q4_K", 144 * 8, 256},
    {StoredType::kQ5_K, "Q5_K", 176 * 8, 256},
    {StoredType::kQ6_K, "Q6_K", 210 * 8, 256},
    {StoredType::kIQ2_XXS, "IQ2_XXS", 66 * 8, 256},
    {StoredType::kIQ2_XS, "IQ2_XS", 74 * 8, 256},
    {StoredType::kIQ2_S, "IQ2_S", 82 * 8, 256},
    {StoredType::kIQ3_XXS, "IQ3_XXS", 98 * 8, 256},
    {StoredType::kIQ3_S, "IQ3_S", 110 * 8, 256},
    {StoredType::kIQ1_S, "IQ1_S", 50 * 8, 256},
    {StoredType::kIQ1_M, "IQ1_M", 56 * 8, 256},
    {StoredType::kIQ4_NL, "IQ4_NL", 18 * 8, 32},
    {StoredType::kIQ4_XS, "IQ4_XS", 136 * 8, 256},
    {StoredType::kTQ1_0, "TQ1_0", 54 * 8, 256},
    {StoredType::kTQ2_0, "TQ2_0", 66 * 8, 256},
    {StoredType::kMXFP4, "MXFP4", 17 * 8, 32},
    {StoredType::kNVFP4, "NVFP4", 36 * 8, 64},
    {StoredType::kQ1_0, "Q1_0", 18 * 8, 128},
    {StoredType::kQ2_0, "Q2_0", 18 * 8, 64},
}};
inline const char* stored_type_name(StoredType t) {
    return kStoredTypes.at(static_cast<size_t>(t)).name;
}
/// Of one element; not for types of blocks.
inline int stored_type_bits(StoredType t) { return kStoredTypes.at(static_cast<size_t>(t)).bits; }
/// Of a tensor. Nothing where that is no whole number below 2^63, or the last extent is no multiple
/// of a block.
std::optional<uint64_t> stored_bytes(StoredType type, std::span<const int64_t> shape);

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

    /// Of a self-contained kind (CheckpointReader): what others keep in a file of this name, such
    /// as "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja". Nothing
    /// where the files say nothing of the sort. Throws kBadContent, kUnsupported.
    virtual std::optional<std::string> document(std::string_view /*name*/) const {
        return std::nullopt;
    }

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
    /// Its files say all of the model (Checkpoint::document); what lies beside them does not count.
    bool self_contained = false;
};

/// The readers of an engine, in order of registration; an ordinary object.
class CheckpointReaders {
  public:
    static CheckpointReaders built_in();
    /// Throws kUsage when the name is taken.
    void add(CheckpointReader reader);
    std::vector<std::string> names() const;
    bool has(std::string_view name) const;
    /// Whether open(path, asked) would choose a reader of self-contained files; "dummy" is taken
    /// for "auto".
    bool self_contained(const std::string& path, const std::string& asked) const;
    /// With the reader `asked`, or for "auto" the first that claims `path`; where none does, it is
    /// taken for safetensors. Readers are not believed: throws kInternal, naming the reader, where
    /// what it states is not so (names in order, shapes, ranges inside their files).
    std::shared_ptr<const Checkpoint> open(const std::string& path, const std::string& asked) const;

  private:
    const CheckpointReader& choose(const std::string& path, const std::string& asked) const;

    std::vector<CheckpointReader> readers_;
};

}  // namespace conclave::sharding
