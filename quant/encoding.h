// How numbers are stored: the vocabulary that checkpoint formats and kernels share.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "quant/grouping.h"

namespace conclave::quant {

/// The type of one code of a weight, as it is kept in memory.
enum class CodeType : uint8_t { kF32, kF16, kBF16, kU4, kU8 };

constexpr int code_bits(CodeType t) {
    return t == CodeType::kF32 ? 32 : t == CodeType::kU4 ? 4 : t == CodeType::kU8 ? 8 : 16;
}
constexpr bool is_integer(CodeType t) { return t == CodeType::kU4 || t == CodeType::kU8; }
const char* code_name(CodeType t);  ///< "f32", "f16", "bf16", "u4", "u8"

/// The type of a group's scale or zero, as it is stored and kept.
enum class FactorType : uint8_t { kNone, kF32, kF16, kBF16, kU8 };
constexpr int factor_bytes(FactorType t) {
    return t == FactorType::kNone ? 0 : t == FactorType::kF32 ? 4 : t == FactorType::kU8 ? 1 : 2;
}

/// How the codes of a matrix stand for numbers. A float weight is its own code. An integer code q,
/// unsigned, of a group with scale s and zero z stands for (q - z) * s.
struct Encoding {
    CodeType code = CodeType::kF32;
    int bits = 0;                          ///< of the stored integer codes, 1 .. 8; 0: floats
    FactorType scale = FactorType::kNone;  ///< f32, f16 or bf16 for integers
    /// kU8: integers, one a group. Floats (HQQ): one a group, subtracted in f32. kNone: zero_point.
    FactorType zero = FactorType::kNone;
    int zero_point = 0;     ///< of all groups, where zero is kNone
    int64_t group = 0;      ///< columns of a group; 0: one group spans them all
    bool permuted = false;  ///< columns belong to groups in an order of their own (act-order)

    bool operator==(const Encoding&) const = default;
    std::string to_string() const;  ///< "bf16", "int4 g32", "int4 g128 asym", "int8 channel" ...
};

/// The type in which a kernel reads its input rows. kI8: see int8_row_bytes().
enum class XType : uint8_t { kF32, kBF16, kI8 };

const char* x_type_name(XType t);  ///< "f32", "bf16", "int8"

/// --activations: how inputs of matrices are rounded before use.
enum class Activations : uint8_t { kAuto, kF32, kBF16, kInt8 };
const char* activations_name(Activations a);  ///< "auto", "f32", "bf16", "int8"

/// The rule that turns the f32 input of a matrix into what is multiplied.
enum class ActivationRule : uint8_t {
    kNone,  ///< f32 as it is
    kBF16,  ///< rounded to bf16, ties to even
    /// Symmetric int8 with one f32 scale per row and block of 32 columns; blocks begin anew with
    /// each group of the weights.
    kInt8,
};
const char* activation_rule_name(ActivationRule r);  ///< "f32", "bf16", "int8"

/// The rule for one encoding under a policy. auto: int8 for integer codes, bf16 for bf16 weights,
/// else f32. int8: as auto.
ActivationRule activation_rule(const Encoding& encoding, Activations policy);

/// What the layout of a packed matrix of n rows is a function of.
struct MatrixLayout {
    int64_t k = 0;  ///< columns held by this rank
    Encoding encoding;
    std::shared_ptr<const Grouping> groups;  ///< of those columns; null for float codes
};

/// One logical matrix inside a (possibly fused) linear: y_part = x W_part^T, W_part [n, k].
struct PartDescriptor {
    std::string name;  ///< "q_proj", "gate_proj", ...
    int64_t n = 0;     ///< rows held by this rank
    MatrixLayout layout;
    ActivationRule rule = ActivationRule::kNone;
};

/// All that a kernel may depend on.
struct LinearDescriptor {
    std::vector<PartDescriptor> parts;
    bool bias = false;
    bool deterministic = false;  ///< only kernels marked consistent may serve
};

}  // namespace conclave::quant
