#include "quant/formats/tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/base/error.h"
#include "runtime/base/half.h"

namespace conclave::quant {
namespace {

/// Bytes of an integer type and whether it is signed; 0 for any other.
struct IntegerType {
    int bytes = 0;
    bool is_signed = false;
};
IntegerType integer_type(const std::string& dtype) {
    if (dtype == "BOOL" || dtype == "U8") return {1, false};
    if (dtype == "I8") return {1, true};
    if (dtype == "I16") return {2, true};
    if (dtype == "I32") return {4, true};
    if (dtype == "I64") return {8, true};
    return {};
}

int64_t read_integer(IntegerType type, const std::byte* from) {
    uint64_t bits = 0;
    std::memcpy(&bits, from, static_cast<size_t>(type.bytes));
    const int unused = 64 - 8 * type.bytes;
    return type.is_signed ? static_cast<int64_t>(bits << unused) >> unused
                          : static_cast<int64_t>(bits);
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string s = "[";
    for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
    return s + "]";
}

TensorHeader expect_tensor(const TensorLookup& tensors, const std::string& name,
                           const std::vector<int64_t>& shape, const std::string& dtype) {
    const auto header = tensors.header(name);
    if (!header)
        throw Error(ErrorCode::kBadContent, "tensor is missing")
            .tensor(name)
            .expected(shape_text(shape))
            .found("no such tensor");
    if (header->shape != shape)
        throw Error(ErrorCode::kBadContent, "tensor has the wrong shape")
            .tensor(name)
            .expected(shape_text(shape))
            .found(shape_text(header->shape));
    if (!dtype.empty() && header->dtype != dtype)
        throw Error(ErrorCode::kUnsupported, "tensor has a type that this format does not store")
            .tensor(name)
            .expected(dtype)
            .found(header->dtype);
    return *header;
}

FactorType float_factor(const std::string& name, const TensorHeader& header) {
    if (header.dtype == "F32") return FactorType::kF32;
    if (header.dtype == "F16") return FactorType::kF16;
    if (header.dtype == "BF16") return FactorType::kBF16;
    throw Error(ErrorCode::kUnsupported, "tensor has a type that is not served for scales")
        .tensor(name)
        .expected("BF16, F16 or F32")
        .found(header.dtype);
}

std::optional<std::vector<int64_t>> read_integers(const TensorLookup& tensors,
                                                  const std::string& name, int64_t count) {
    const auto header = tensors.header(name);
    if (!header) return std::nullopt;
    const auto refuse = [&](const std::string& expected) {
        throw Error(ErrorCode::kBadContent, "tensor is not what this format stores")
            .tensor(name)
            .expected(expected)
            .found(header->dtype + " " + shape_text(header->shape));
    };
    const IntegerType type = integer_type(header->dtype);
    if (type.bytes == 0) refuse("integers");
    // Scalars have no axis; no axis of a tensor of `count` elements is longer than that.
    int64_t elements = 1;
    for (const int64_t axis : header->shape) {
        if (axis < 0 || axis > count) refuse(std::to_string(count) + " elements");
        if (axis > 0 && elements > count / axis) refuse(std::to_string(count) + " elements");
        elements *= axis;
    }
    if (elements != count) refuse(std::to_string(count) + " elements");
    const auto bytes = static_cast<size_t>(count * type.bytes);
    const std::vector<std::byte> raw = tensors.read(name, bytes);
    if (raw.size() != bytes) refuse(std::to_string(bytes) + " bytes");
    std::vector<int64_t> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i)
        values[i] = read_integer(type, raw.data() + i * static_cast<size_t>(type.bytes));
    return values;
}

std::optional<float> read_scalar(const TensorLookup& tensors, const std::string& name) {
    const auto header = tensors.header(name);
    if (!header) return std::nullopt;
    const auto refuse = [&](const std::string& what, const std::string& expected,
                            const std::string& found) {
        throw Error(ErrorCode::kBadContent, what).tensor(name).expected(expected).found(found);
    };
    const bool one =
        header->shape.size() <= 2 && std::all_of(header->shape.begin(), header->shape.end(),
                                                 [](int64_t axis) { return axis == 1; });
    if (!one) refuse("tensor has the wrong shape", "one number", shape_text(header->shape));
    const IntegerType integer = integer_type(header->dtype);
    const FactorType type = integer.bytes > 0 ? FactorType::kNone : float_factor(name, *header);
    if (!tensors.values()) return 1.0f;
    const auto bytes = static_cast<size_t>(integer.bytes > 0 ? integer.bytes : factor_bytes(type));
    const std::vector<std::byte> raw = tensors.read(name, bytes);
    if (raw.size() != bytes)
        refuse("tensor has the wrong size", std::to_string(bytes) + " bytes",
               std::to_string(raw.size()) + " bytes");
    return integer.bytes > 0 ? static_cast<float>(read_integer(integer, raw.data()))
                             : read_factor(type, raw.data());
}

void add_companions(StoredMatrix& matrix, const TensorLookup& tensors, const std::string& stem,
                    std::initializer_list<const char*> suffixes) {
    for (const char* suffix : suffixes)
        if (tensors.header(stem + suffix)) matrix.companions.push_back(stem + suffix);
}

float read_factor(FactorType type, const std::byte* from) {
    if (type == FactorType::kF32) {
        float value;
        std::memcpy(&value, from, 4);
        return value;
    }
    uint16_t half;
    std::memcpy(&half, from, 2);
    return type == FactorType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
}

void write_factor(FactorType type, float value, std::byte* to) {
    if (type == FactorType::kF32) {
        std::memcpy(to, &value, 4);
        return;
    }
    const uint16_t half = type == FactorType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
    std::memcpy(to, &half, 2);
}

float generated_scale(int bits, int64_t k) {
    const double levels = std::ldexp(1.0, bits);
    return static_cast<float>(
        std::sqrt(12.0 / ((levels * levels - 1) * static_cast<double>(std::max<int64_t>(k, 1)))));
}

}  // namespace conclave::quant
