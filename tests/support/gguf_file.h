// Writes GGUF files for tests: well-formed ones, or damaged on purpose.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace conclave::testing {

/// The bytes of a number, low first; integers and floats.
template <class T>
std::string le(T value) {
    std::string bytes(sizeof(T), '\0');
    std::memcpy(bytes.data(), &value, sizeof(T));
    return bytes;
}

/// Length and bytes.
inline std::string gguf_text(std::string_view text) {
    return le(uint64_t{text.size()}) + std::string(text);
}

class GgufFile {
  public:
    /// Numbers of value types.
    enum : uint32_t {
        kU8,
        kI8,
        kU16,
        kI16,
        kU32,
        kI32,
        kF32,
        kBool,
        kText,
        kArray,
        kU64,
        kI64,
        kF64
    };
    /// Numbers of some tensor types.
    enum : uint32_t {
        kTensorF32 = 0,
        kTensorF16 = 1,
        kTensorQ4_0 = 2,
        kTensorQ8_0 = 8,
        kTensorQ4_K = 12,
        kTensorNVFP4 = 40
    };

    /// Any pair: `value` is what follows the type.
    GgufFile& pair(std::string_view key, uint32_t type, std::string_view value) {
        pairs_ += gguf_text(key) + le(type) + std::string(value);
        ++pair_count_;
        return *this;
    }
    GgufFile& u16(std::string_view key, uint16_t v) { return pair(key, kU16, le(v)); }
    GgufFile& u32(std::string_view key, uint32_t v) { return pair(key, kU32, le(v)); }
    GgufFile& i32(std::string_view key, int32_t v) { return pair(key, kI32, le(v)); }
    GgufFile& u64(std::string_view key, uint64_t v) { return pair(key, kU64, le(v)); }
    GgufFile& f32(std::string_view key, float v) { return pair(key, kF32, le(v)); }
    GgufFile& boolean(std::string_view key, bool v) {
        return pair(key, kBool, le(static_cast<uint8_t>(v)));
    }
    GgufFile& text(std::string_view key, std::string_view v) {
        return pair(key, kText, gguf_text(v));
    }
    /// `elements`: their bytes.
    GgufFile& array(std::string_view key, uint32_t type, uint64_t count,
                    std::string_view elements) {
        return pair(key, kArray, le(type) + le(count) + std::string(elements));
    }
    GgufFile& texts(std::string_view key, const std::vector<std::string>& values) {
        std::string elements;
        for (const std::string& v : values) elements += gguf_text(v);
        return array(key, kText, values.size(), elements);
    }
    template <class T>
    GgufFile& numbers(std::string_view key, uint32_t type, const std::vector<T>& values) {
        std::string elements;
        for (const T v : values) elements += le(v);
        return array(key, type, values.size(), elements);
    }

    /// A tensor behind those before it. `dims`: the fastest first.
    GgufFile& tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                     std::string_view data) {
        return tensor_at(name, dims, type, data_.size(), data);
    }
    /// The same with any offset in its entry.
    GgufFile& tensor_at(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                        uint64_t offset, std::string_view data) {
        infos_ += gguf_text(name) + le(static_cast<uint32_t>(dims.size()));
        for (const uint64_t extent : dims) infos_ += le(extent);
        infos_ += le(type) + le(offset);
        data_ += data;
        data_.append((alignment - data_.size() % alignment) % alignment, '\0');
        ++tensor_count_;
        return *this;
    }

    std::string header() const {
        return magic + le(version) + le(claimed_tensors.value_or(tensor_count_)) +
               le(claimed_pairs.value_or(pair_count_)) + pairs_ + infos_;
    }
    std::string bytes() const {
        std::string all = header();
        all.append((alignment - all.size() % alignment) % alignment, '\0');
        return all + data_;
    }

    std::string magic = "GGUF";
    uint32_t version = 3;
    /// What data is padded to; to be set before tensors are added. No key is written for it.
    uint64_t alignment = 32;
    std::optional<uint64_t> claimed_tensors, claimed_pairs;  ///< instead of the true counts

  private:
    std::string pairs_, infos_, data_;
    uint64_t pair_count_ = 0, tensor_count_ = 0;
};

}  // namespace conclave::testing
