#include "sharding/checkpoint/gguf/container.h"

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/error.h"
#include "runtime/base/hash.h"
#include "runtime/base/text.h"
#include "sharding/checkpoint/safetensors.h"

namespace conclave::sharding {
namespace {

constexpr uint64_t kReadBytes = 64 << 10;  // the least that is asked of the file at a time
constexpr uint64_t kLeastPair = 8 + 4 + 1;
constexpr uint64_t kLeastTensor = 8 + 4 + 4 + 8;
// Real files have some dozens of keys, and up to some ten thousand tensors.
constexpr uint64_t kMaxPairs = 1 << 16, kMaxTensors = 1 << 20;
constexpr uint64_t kMaxKeyBytes = 65535, kMaxNameBytes = 63;
constexpr uint32_t kMaxDims = 4;
constexpr int64_t kDefaultAlignment = 32, kMaxAlignment = 1 << 20;

struct NumberedType {
    uint32_t number;
    StoredType type;
};
constexpr NumberedType kServed[] = {
    {0, StoredType::kF32},      {1, StoredType::kF16},     {2, StoredType::kQ4_0},
    {3, StoredType::kQ4_1},     {6, StoredType::kQ5_0},    {7, StoredType::kQ5_1},
    {8, StoredType::kQ8_0},     {10, StoredType::kQ2_K},   {11, StoredType::kQ3_K},
    {12, StoredType::kQ4_K},    {13, StoredType::kQ5_K},   {14, StoredType::kQ6_K},
    {16, StoredType::kIQ2_XXS}, {17, StoredType::kIQ2_XS}, {18, StoredType::kIQ3_XXS},
    {19, StoredType::kIQ1_S},   {20, StoredType::kIQ4_NL}, {21, StoredType::kIQ3_S},
    {22, StoredType::kIQ2_S},   {23, StoredType::kIQ4_XS}, {24, StoredType::kI8},
    {25, StoredType::kI16},     {26, StoredType::kI32},    {27, StoredType::kI64},
    {28, StoredType::kF64},     {29, StoredType::kIQ1_M},  {30, StoredType::kBF16},
    {34, StoredType::kTQ1_0},   {35, StoredType::kTQ2_0},  {39, StoredType::kMXFP4},
    {40, StoredType::kNVFP4},   {41, StoredType::kQ1_0},   {42, StoredType::kQ2_0},
};

struct RefusedType {
    uint32_t number;
    const char* name;
};
constexpr const char* kRemoved = "which GGUF no longer has";
constexpr RefusedType kRemovedTypes[] = {
    {4, "Q4_2"},      {5, "Q4_3"},        {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},
    {33, "Q4_0_8_8"}, {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"},
};
constexpr RefusedType kRuntimeTypes[] = {{9, "Q8_1"}, {15, "Q8_K"}};
// Of ik_llama.cpp, which gives 36 to I2_S, too.
constexpr RefusedType kPrivateTypes[] = {
    {97, "Q8_0_X4"},  {98, "Q8_1_X4"},  {99, "Q8_2_X4"}, {133, "Q6_0"},   {134, "IQ1_BN"},
    {135, "IQ2_BN"},  {136, "Q8_K64"},  {137, "IQ2_K"},  {138, "IQ3_K"},  {139, "IQ4_K"},
    {140, "IQ5_K"},   {141, "IQ6_K"},   {142, "IQ2_TN"}, {143, "IQ1_TN"}, {144, "IQ4_KS"},
    {145, "IQ2_KS"},  {146, "IQ4_KSS"}, {147, "Q8_K16"}, {148, "Q8_K32"}, {149, "Q8_KR8"},
    {150, "Q8_K128"}, {151, "Q8_KV"},   {152, "IQ5_KS"}, {153, "IQ2_KT"}, {154, "IQ3_KT"},
    {155, "IQ4_KT"},  {156, "IQ3_KS"},  {157, "IQ2_KL"}, {158, "IQ1_KT"},
};
// Its types of interleaved rows: of type t, 200 + t (named _R4 or _R8) and beyond.
constexpr uint32_t kFirstInterleaved = 200, kLastInterleaved = 400;

/// Why a type that is no served one is refused; empty: nobody is known to have it.
std::string refusal_of(uint32_t number) {
    for (const RefusedType& t : kRemovedTypes)
        if (t.number == number)
            return fmt::format("type {}, {}, {}{}", number, t.name, kRemoved,
                               number == 36 ? ", or I2_S of ik_llama.cpp" : "");
    for (const RefusedType& t : kRuntimeTypes)
        if (t.number == number)
            return fmt::format("type {}, {}, which no file stores", number, t.name);
    for (const RefusedType& t : kPrivateTypes)
        if (t.number == number) return fmt::format("type {}, {} of ik_llama.cpp", number, t.name);
    if (number >= kFirstInterleaved && number <= kLastInterleaved)
        return fmt::format("type {}, interleaved rows of ik_llama.cpp", number);
    return "";
}

uint64_t align_up(uint64_t bytes, uint64_t alignment) {
    return (bytes + alignment - 1) / alignment * alignment;
}

std::string bytes_text(uint64_t bytes) { return fmt::format("{} bytes", bytes); }

Error bad_tensor(const File& file, const std::string& name, std::string message) {
    return std::move(Error(ErrorCode::kBadContent, std::move(message))
                         .file(file.path())
                         .tensor(printable(name)));
}

/// Steps through a header, reading the file as far as it gets.
class HeaderParser {
  public:
    HeaderParser(const File& file, int index, ReadCounters& counters)
        : file_(file), index_(index), counters_(counters) {}

    /// Tensors are sized, and their offsets still relative to the data.
    GgufHeader parse() {
        check_version();
        const uint64_t tensors = number(8), pairs = number(8);
        check_count("tensors", tensors, kLeastTensor, kMaxTensors);
        check_count("key-value pairs", pairs, kLeastPair, kMaxPairs);
        std::vector<GgufPair> found;
        for (uint64_t i = 0; i < pairs; ++i) found.push_back(pair());
        const size_t infos_at = at_;
        for (uint64_t i = 0; i < tensors; ++i) skip_tensor();  // so that they are known to be there
        end_ = at_;
        at_ = infos_at;
        GgufHeader header;
        header.tensors.reserve(static_cast<size_t>(tensors));
        for (uint64_t i = 0; i < tensors; ++i) header.tensors.push_back(tensor());
        header.hash = Hasher().add(std::span<const std::byte>(bytes_).first(end_)).value();
        header.metadata = GgufMetadata(file_.path(), std::move(bytes_), found);
        return header;
    }
    uint64_t header_bytes() const { return end_; }

  private:
    Error malformed(const std::string& what) const {
        return std::move(
            Error(ErrorCode::kBadContent, fmt::format("{} (header byte {}{})", what, at_, key_))
                .file(file_.path()));
    }

    /// Has the next `bytes` in memory.
    void need(uint64_t bytes) {
        if (bytes <= bytes_.size() - at_) return;
        const uint64_t left = file_.size() - at_;
        if (bytes > left)
            throw malformed("file ends inside its GGUF header")
                .expected(bytes_text(bytes) + " more")
                .found(bytes_text(left));
        if (bytes > kMaxGgufHeaderBytes - std::min<uint64_t>(at_, kMaxGgufHeaderBytes))
            throw malformed("GGUF header is too long")
                .expected("at most " + bytes_text(kMaxGgufHeaderBytes))
                .found(bytes_text(bytes) + " more");
        const size_t had = bytes_.size();
        bytes_.resize(static_cast<size_t>(
            std::min(file_.size(), std::max<uint64_t>(at_ + bytes, had + kReadBytes))));
        counted_read(file_, had, std::span(bytes_).subspan(had), counters_);
    }
    void skip(uint64_t bytes) {
        need(bytes);
        at_ += static_cast<size_t>(bytes);
    }
    uint64_t number(size_t bytes) {
        need(bytes);
        const uint64_t value = load_little_endian(&bytes_[at_], bytes);
        at_ += bytes;
        return value;
    }
    std::string_view text(uint64_t bytes) {
        skip(bytes);
        return {reinterpret_cast<const char*>(bytes_.data()) + at_ - bytes,
                static_cast<size_t>(bytes)};
    }

    void check_version() {
        if (file_.size() < 8)
            throw malformed("file is too short to be GGUF")
                .expected("at least 8 bytes")
                .found(bytes_text(file_.size()));
        const std::string_view magic = text(4);
        if (magic == "vers" && text(4) == "ion ")
            throw malformed("not the weights but a git-lfs pointer to them");
        if (load_little_endian(bytes_.data(), 4) != kGgufMagic)
            throw malformed("not a GGUF file")
                .expected("\"GGUF\" at its beginning")
                .found(in_quotes(magic));
        const uint64_t version = number(4);
        if (version == 2 || version == 3) return;
        Error error = malformed("GGUF file of a version that is not served");
        if (version == 0) throw error.expected("2 or 3").found("0");
        const bool is_swapped = (version & 0xffff) == 0;
        throw Error(ErrorCode::kUnsupported, is_swapped ? "big-endian GGUF file is not served"
                                                        : "version of GGUF is not served")
            .file(file_.path())
            .expected("version 2 or 3, little-endian")
            .found(std::to_string(version));
    }

    void check_count(const char* what, uint64_t count, uint64_t least_bytes, uint64_t most) const {
        const uint64_t room = std::min((file_.size() - at_) / least_bytes, most);
        if (count > room)
            throw malformed(fmt::format("GGUF file claims too many {}", what))
                .expected(fmt::format("at most {}", room))
                .found(std::to_string(count));
    }

    GgufType type_of_value(const char* what) {
        const uint64_t type = number(4);
        if (type >= kGgufTypes)
            throw malformed(fmt::format("type of {} is none of GGUF's", what))
                .expected(fmt::format("0 to {}", kGgufTypes - 1))
                .found(std::to_string(type));
        return static_cast<GgufType>(type);
    }

    GgufPair pair() {
        key_.clear();
        GgufPair pair;
        const uint64_t key_bytes = number(8);
        if (key_bytes > kMaxKeyBytes)
            throw malformed("GGUF key is too long")
                .expected("at most " + bytes_text(kMaxKeyBytes))
                .found(bytes_text(key_bytes));
        pair.key_at = at_;
        pair.key_bytes = static_cast<size_t>(key_bytes);
        key_ = ", key " + in_quotes(text(key_bytes));
        pair.type = type_of_value("value");
        if (pair.type == GgufType::kArray) {
            array(pair);
        } else {
            pair.at = at_;
            skip(pair.type == GgufType::kString ? number(8) : gguf_type_bytes(pair.type));
        }
        key_.clear();
        return pair;
    }

    void array(GgufPair& pair) {
        pair.element = type_of_value("elements");
        if (pair.element == GgufType::kArray)
            throw malformed("GGUF array has arrays for elements")
                .expected("a scalar or strings")
                .found("type 9");
        pair.count = number(8);
        pair.at = at_;
        const size_t each = gguf_type_bytes(pair.element);
        const uint64_t room = (file_.size() - at_) / (each ? each : 8);
        if (pair.count > room)
            throw malformed("GGUF array is longer than its file")
                .expected(fmt::format("at most {} elements", room))
                .found(std::to_string(pair.count));
        if (each) return skip(pair.count * each);
        for (uint64_t i = 0; i < pair.count; ++i) skip(number(8));
    }

    void skip_tensor() {
        const uint64_t name_bytes = number(8);
        if (name_bytes > kMaxNameBytes)
            throw malformed("name of a tensor is too long")
                .expected("at most " + bytes_text(kMaxNameBytes))
                .found(bytes_text(name_bytes));
        const std::string name(text(name_bytes));
        const uint64_t rank = number(4);
        if (rank > kMaxDims)
            throw malformed("tensor has too many dimensions")
                .tensor(printable(name))
                .expected(fmt::format("at most {}", kMaxDims))
                .found(std::to_string(rank));
        skip(8 * rank + 4 + 8);
    }

    /// Of what skip_tensor() went over.
    GgufTensor tensor() {
        GgufTensor t;
        t.name = text(number(8));
        t.file = index_;
        t.dims.resize(static_cast<size_t>(number(4)));
        for (int64_t& extent : t.dims) {
            const uint64_t raw = number(8);
            if (!std::in_range<int64_t>(raw))
                throw malformed("extent is out of range")
                    .tensor(printable(t.name))
                    .expected("0 to 2^63 - 1")
                    .found(std::to_string(raw));
            extent = static_cast<int64_t>(raw);
        }
        t.type = type_of(t.name, static_cast<uint32_t>(number(4)));
        t.bytes = size_of(t);
        t.offset = number(8);
        return t;
    }

    StoredType type_of(const std::string& name, uint32_t number) const {
        for (const NumberedType& t : kServed)
            if (t.number == number) return t.type;
        const std::string refusal = refusal_of(number);
        Error error(refusal.empty() ? ErrorCode::kBadContent : ErrorCode::kUnsupported,
                    "tensor has a type that is not served");
        throw error.file(file_.path())
            .tensor(printable(name))
            .expected("a type of GGUF's, 0 to 42")
            .found(refusal.empty() ? fmt::format("type {}", number) : refusal);
    }

    uint64_t size_of(const GgufTensor& t) const {
        const StoredTypeInfo& info = kStoredTypes[static_cast<size_t>(t.type)];
        const std::vector<int64_t> shape(t.dims.rbegin(), t.dims.rend());
        if (const auto bytes = stored_bytes(t.type, shape)) return *bytes;
        const bool is_cut = info.block > 1 && (t.dims.empty() || t.dims[0] % info.block != 0);
        throw bad_tensor(file_, t.name,
                         is_cut ? "rows are no whole number of blocks" : "size overflows 63 bits")
            .expected(is_cut ? fmt::format("a first extent that is a multiple of {}", info.block)
                             : "a size below 2^63")
            .found(fmt::format("{} [{}]", info.name, fmt::join(t.dims, ", ")));
    }

    const File& file_;
    const int index_;
    ReadCounters& counters_;
    std::vector<std::byte> bytes_;  ///< of the file from its start; at_ is inside or at the end
    size_t at_ = 0, end_ = 0;
    std::string key_;  ///< for messages
};

/// Tensors must lie one behind the other in the order of the list, each padded, inside the file.
void place_tensors(GgufHeader& header, const File& file, uint64_t header_bytes) {
    const int64_t stated =
        header.metadata.get_int_or("general.alignment", kDefaultAlignment, 1, kMaxAlignment);
    const auto alignment = static_cast<uint64_t>(stated);
    if (!std::has_single_bit(alignment))
        throw Error(ErrorCode::kBadContent, "GGUF key \"general.alignment\" is not as it must be")
            .file(file.path())
            .expected("a power of 2")
            .found(std::to_string(alignment));
    const uint64_t data_start = align_up(header_bytes, alignment);
    const uint64_t data_bytes = file.size() - std::min(data_start, file.size());
    uint64_t end = 0;  // at most data_bytes and padding
    for (GgufTensor& t : header.tensors) {
        if (t.offset != end)
            throw bad_tensor(file, t.name,
                             t.offset % alignment ? "offset of tensor is not aligned"
                             : t.offset > end     ? "hole between tensors"
                                                  : "tensors overlap")
                .expected(fmt::format("offset {}, a multiple of {}", end, alignment))
                .found(std::to_string(t.offset));
        const uint64_t room = data_bytes - std::min(end, data_bytes);
        if (t.bytes > room || data_start + end > file.size())  // the latter of empty ones
            throw bad_tensor(file, t.name, "tensor reaches beyond the end of its file")
                .expected("at most " + bytes_text(room))
                .found(bytes_text(t.bytes));
        end = align_up(t.offset + t.bytes, alignment);
        t.offset += data_start;
    }
}

}  // namespace

GgufHeader read_gguf_header(const File& file, int index, ReadCounters& counters) {
    HeaderParser parser(file, index, counters);
    GgufHeader header = parser.parse();
    place_tensors(header, file, parser.header_bytes());
    std::vector<std::string_view> names;
    names.reserve(header.tensors.size());
    for (const GgufTensor& t : header.tensors) names.push_back(t.name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end())
        throw bad_tensor(file, std::string(*twice), "duplicate tensor name")
            .expected("each name once")
            .found("it twice");
    return header;
}

}  // namespace conclave::sharding
