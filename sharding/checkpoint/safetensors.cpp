#include "sharding/checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/base/hash.h"
#include "runtime/base/json.h"
#include "runtime/base/text.h"

namespace conclave::sharding {
namespace {

// Bounds memory: a dimension of two header bytes becomes eight. Frameworks stop at 32 or 64.
constexpr size_t kMaxRank = 32;
// Bounds memory too; real files have a handful.
constexpr size_t kMaxMetadata = 100'000;
constexpr uint64_t kLengthBytes = 8;

constexpr bool types_in_order() {
    for (size_t i = 0; i < kStoredTypes.size(); ++i)
        if (static_cast<size_t>(kStoredTypes[i].type) != i) return false;
    return true;
}
static_assert(types_in_order());

Error bad_tensor(const File& file, const std::string& name, std::string message) {
    return std::move(Error(ErrorCode::kBadContent, std::move(message))
                         .file(file.path())
                         .tensor(printable(name)));
}

/// {"__metadata__": {string: string}, NAME: {"dtype": T, "shape": [..], "data_offsets": [b, e]}}
class HeaderHandler final : public JsonHandler {
  public:
    HeaderHandler(const File& file, int index, size_t likely_tensors) : file_(file), index_(index) {
        tensors_.reserve(likely_tensors);
    }

    void on_null() override { unexpected("null"); }
    void on_bool(bool v) override { unexpected(v ? "true" : "false"); }
    void on_int(int64_t v) override { unexpected(v ? std::to_string(v) : "-0"); }
    void on_double(double v) override { unexpected(describe_json(v)); }

    void on_uint(uint64_t v) override {
        if (expects_ == Expects::kDimension) {
            if (!std::in_range<int64_t>(v)) unexpected(std::to_string(v));
            if (now_.shape.size() == kMaxRank) unexpected("one more");
            now_.shape.push_back(static_cast<int64_t>(v));
        } else if (expects_ == Expects::kOffset) {
            if (offsets_read_ == offsets_.size()) unexpected("a third");
            offsets_[offsets_read_++] = v;
        } else {
            unexpected(std::to_string(v));
        }
    }

    void on_string(std::string& v) override {
        if (expects_ == Expects::kMetadataText) {
            metadata_.add(metadata_key_, v);
            expects_ = Expects::kMetadataKey;
        } else if (expects_ == Expects::kType) {
            const auto end = kStoredTypes.begin() + kSafetensorsTypes;
            const auto known = std::find_if(kStoredTypes.begin(), end,
                                            [&](const StoredTypeInfo& t) { return v == t.name; });
            if (known == end) unexpected(in_quotes(v));
            now_.type = known->type;
            expects_ = Expects::kField;
        } else {
            unexpected(in_quotes(v));
        }
    }

    void on_key(std::string& key) override {
        if (expects_ == Expects::kName) {
            begin_entry(key);
        } else if (expects_ == Expects::kMetadataKey) {
            if (metadata_.size() == kMaxMetadata) fail("too many metadata entries");
            metadata_key_ = std::move(key);
            expects_ = Expects::kMetadataText;
        } else {
            begin_field(key);
        }
    }

    void on_begin_object() override {
        switch (expects_) {
            case Expects::kHeader:
                expects_ = Expects::kName;
                break;
            case Expects::kMetadata:
                expects_ = Expects::kMetadataKey;
                break;
            case Expects::kTensor:
                expects_ = Expects::kField;
                break;
            default:
                unexpected("an object");
        }
    }
    void on_end_object() override {
        if (expects_ == Expects::kField) end_tensor();
        if (expects_ == Expects::kMetadataKey)
            if (const auto twice = metadata_.seal())
                fail("duplicate metadata key " + in_quotes(*twice));
        expects_ = Expects::kName;
    }
    void on_begin_array() override {
        if (expects_ == Expects::kShape) {
            expects_ = Expects::kDimension;
        } else if (expects_ == Expects::kOffsets) {
            expects_ = Expects::kOffset;
        } else {
            unexpected("an array");
        }
    }
    void on_end_array() override {
        if (expects_ == Expects::kOffset && offsets_read_ != offsets_.size())
            unexpected("only " + std::to_string(offsets_read_));
        expects_ = Expects::kField;
    }

    std::vector<StoredTensor> take() { return std::move(tensors_); }
    Metadata take_metadata() { return std::move(metadata_); }

  private:
    enum class Expects {
        kHeader,
        kName,
        kMetadata,
        kMetadataKey,
        kMetadataText,
        kTensor,
        kField,
        kType,
        kShape,
        kDimension,
        kOffsets,
        kOffset,
    };
    static constexpr unsigned kAllFields = 7;  // a bit for each of the three

    static const char* expectation(Expects e) {
        switch (e) {
            case Expects::kMetadata:
                return "__metadata__ to be an object";
            case Expects::kMetadataText:
                return "metadata values to be strings";
            case Expects::kTensor:
                return "an object with dtype, shape, data_offsets";
            case Expects::kType:
                return "a dtype that safetensors defines";
            case Expects::kShape:
                return "shape to be an array";
            case Expects::kDimension:
                return "up to 32 dimensions from 0 to 2^63 - 1";
            case Expects::kOffsets:
                return "data_offsets to be an array";
            case Expects::kOffset:
                return "two offsets from 0 to 2^64 - 1";
            default:
                return "an object";
        }
    }

    Error malformed(std::string message) const {
        return bad_tensor(file_, now_.name,
                          std::move(message) + " (header byte " + std::to_string(position()) + ")");
    }
    [[noreturn]] void fail(std::string message) const { throw malformed(std::move(message)); }
    [[noreturn]] void unexpected(std::string found) const {
        throw malformed("malformed safetensors header")
            .expected(expectation(expects_))
            .found(std::move(found));
    }

    void begin_entry(std::string& key) {
        if (key == "__metadata__") {
            now_.name.clear();
            if (std::exchange(has_metadata_, true)) fail("duplicate __metadata__");
            expects_ = Expects::kMetadata;
            return;
        }
        now_ = {};
        now_.name = std::move(key);
        now_.file = index_;
        offsets_read_ = 0;
        fields_ = 0;
        expects_ = Expects::kTensor;
    }

    void begin_field(const std::string& key) {
        unsigned field = 0;
        if (key == "dtype") {
            field = 1;
            expects_ = Expects::kType;
        } else if (key == "shape") {
            field = 2;
            expects_ = Expects::kShape;
        } else if (key == "data_offsets") {
            field = 4;
            expects_ = Expects::kOffsets;
        } else {
            fail("unknown field " + in_quotes(key));
        }
        if (fields_ & field) fail("duplicate field " + in_quotes(key));
        fields_ |= field;
    }

    void end_tensor() {
        if (fields_ != kAllFields) fail("dtype, shape or data_offsets is missing");
        const auto [begin, end] = offsets_;
        if (end < begin)
            throw malformed("data_offsets run backwards")
                .expected("an end at or after " + std::to_string(begin))
                .found(std::to_string(end));
        uint64_t bits = 1;
        bool overflow = false;
        for (const int64_t dimension : now_.shape)
            overflow |= __builtin_mul_overflow(bits, static_cast<uint64_t>(dimension), &bits);
        overflow |=
            __builtin_mul_overflow(bits, static_cast<uint64_t>(stored_type_bits(now_.type)), &bits);
        if (overflow) fail("size overflows 64 bits: " + now_.describe());
        if (bits % 8 != 0) fail("size is not a whole number of bytes: " + now_.describe());
        if (end - begin != bits / 8)
            throw malformed("data_offsets and shape disagree")
                .expected(std::to_string(bits / 8) + " bytes for " + now_.describe())
                .found(std::to_string(end - begin) + " bytes");
        now_.offset = begin;
        now_.bytes = end - begin;
        now_.shape.shrink_to_fit();
        tensors_.push_back(std::move(now_));
    }

    const File& file_;
    const int index_;
    Expects expects_ = Expects::kHeader;
    StoredTensor now_;
    std::array<uint64_t, 2> offsets_{};
    size_t offsets_read_ = 0;
    unsigned fields_ = 0;
    bool has_metadata_ = false;
    std::string metadata_key_;
    Metadata metadata_;
    std::vector<StoredTensor> tensors_;
};

/// The length of the JSON part, from the first eight bytes.
uint64_t header_length(const File& file, ReadCounters& counters) {
    if (file.size() < kLengthBytes)
        throw Error(ErrorCode::kBadContent, "file is too short to be safetensors")
            .file(file.path())
            .expected("at least 8 bytes")
            .found(std::to_string(file.size()) + " bytes");
    std::array<std::byte, kLengthBytes> raw{};
    counted_read(file, 0, raw, counters);
    uint64_t length = 0;
    for (size_t i = 0; i < raw.size(); ++i) length |= std::to_integer<uint64_t>(raw[i]) << (8 * i);
    constexpr uint64_t kGitLfsPointer = 0x206e6f6973726576;  // "version "
    if (length == kGitLfsPointer)
        throw Error(ErrorCode::kBadContent, "not the weights but a git-lfs pointer to them")
            .file(file.path());
    if (length > kMaxHeaderBytes)
        throw Error(ErrorCode::kBadContent, "safetensors header is too long")
            .file(file.path())
            .expected("at most " + std::to_string(kMaxHeaderBytes) + " bytes")
            .found(std::to_string(length) + " bytes");
    if (length > file.size() - kLengthBytes)
        throw Error(ErrorCode::kBadContent, "file ends inside its safetensors header")
            .file(file.path())
            .expected("at least " + std::to_string(kLengthBytes + length) + " bytes")
            .found(std::to_string(file.size()) + " bytes");
    return length;
}

/// Tensors must fill the rest of the file in some order, with no hole, overlap or tail.
void place_tensors(std::vector<StoredTensor>& tensors, const File& file, uint64_t data_start) {
    std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
        return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
    });
    const uint64_t data_bytes = file.size() - data_start;
    uint64_t end = 0;
    for (StoredTensor& t : tensors) {
        if (t.offset != end)
            throw bad_tensor(file, t.name,
                             t.offset > end ? "hole between tensors" : "tensors overlap")
                .expected("data_offsets that begin at " + std::to_string(end))
                .found(std::to_string(t.offset));
        if (t.bytes > data_bytes - end)
            throw bad_tensor(file, t.name, "tensor reaches beyond the end of its file")
                .expected("at most " + std::to_string(data_bytes - end) + " bytes")
                .found(std::to_string(t.bytes) + " bytes, " + t.describe());
        end += t.bytes;
        t.offset += data_start;
    }
    if (end != data_bytes)
        throw Error(ErrorCode::kBadContent, "file has bytes that belong to no tensor")
            .file(file.path())
            .expected(std::to_string(data_start + end) + " bytes")
            .found(std::to_string(file.size()) + " bytes");
}

}  // namespace

void counted_read(const File& file, uint64_t offset, std::span<std::byte> out,
                  ReadCounters& counters) {
    const uint64_t calls = file.read(offset, out);
    counters.bytes.fetch_add(out.size(), std::memory_order_relaxed);
    counters.calls.fetch_add(calls, std::memory_order_relaxed);
}

SafetensorsHeader read_safetensors_header(const File& file, int index, ReadCounters& counters) {
    const uint64_t length = header_length(file, counters);
    std::string text(static_cast<size_t>(length), '\0');
    counted_read(file, kLengthBytes, std::as_writable_bytes(std::span(text)), counters);
    if (text.empty() || text.front() != '{')
        throw Error(ErrorCode::kBadContent, "malformed safetensors header")
            .file(file.path())
            .expected("a JSON object")
            .found(text.empty() ? "nothing" : in_quotes(text, 16));

    SafetensorsHeader header;
    header.hash = Hasher().add(std::as_bytes(std::span(text))).value();
    constexpr size_t kLeastTensor = 50;  // characters of the shortest entry
    const auto braces = static_cast<size_t>(std::count(text.begin(), text.end(), '{'));
    HeaderHandler handler(file, index, std::min(braces, text.size() / kLeastTensor));
    JsonLimits limits;
    limits.file = file.path();
    limits.max_bytes = kMaxHeaderBytes;
    const size_t last = text.find_last_not_of(' ');  // padding may be longer than a token
    read_json(std::string_view(text).substr(0, last + 1), limits, handler);
    header.tensors = handler.take();
    header.metadata = handler.take_metadata();

    place_tensors(header.tensors, file, kLengthBytes + length);
    const auto by_name = [](const StoredTensor& a, const StoredTensor& b) {
        return a.name < b.name;
    };
    std::sort(header.tensors.begin(), header.tensors.end(), by_name);
    const auto twice = std::adjacent_find(
        header.tensors.begin(), header.tensors.end(),
        [](const StoredTensor& a, const StoredTensor& b) { return a.name == b.name; });
    if (twice != header.tensors.end()) throw bad_tensor(file, twice->name, "duplicate tensor name");
    return header;
}

}  // namespace conclave::sharding
