// How numbers are stored: the vocabulary that checkpoint formats and kernels share.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace conclave::quant {

/// The type of one code of a weight.
enum class CodeType : uint8_t { kF32, kF16, kBF16 };

constexpr int code_bits(CodeType t) { return t == CodeType::kF32 ? 32 : 16; }
const char* code_name(CodeType t);  ///< "f32", "f16", "bf16"

/// How the codes of a matrix stand for numbers. An unquantized weight is its own code; formats
/// with groups, scales and zeros add their fields here.
struct Encoding {
    CodeType code = CodeType::kF32;

    bool operator==(const Encoding&) const = default;
    std::string to_string() const { return code_name(code); }
};

/// The type in which a kernel reads its input rows.
enum class XType : uint8_t { kF32, kBF16 };

/// --activations: how inputs of matrices are rounded before use.
enum class Activations : uint8_t { kAuto, kF32, kBF16 };
const char* activations_name(Activations a);  ///< "auto", "f32", "bf16"

/// The rule that turns the f32 input of a matrix into what is multiplied.
enum class ActivationRule : uint8_t {
    kNone,  ///< f32 as it is
    kBF16,  ///< rounded to bf16, ties to even
};
const char* activation_rule_name(ActivationRule r);  ///< "f32", "bf16"

/// The rule for one encoding under a policy. auto: bf16 for bf16 weights, else f32.
ActivationRule activation_rule(const Encoding& encoding, Activations policy);

/// One logical matrix inside a (possibly fused) linear: y_part = x W_part^T, W_part [n, k].
struct PartDescriptor {
    std::string name;  ///< "q_proj", "gate_proj", ...
    int64_t n = 0;     ///< rows held by this rank
    Encoding encoding;
};

/// All that a kernel may depend on.
struct LinearDescriptor {
    int64_t k = 0;  ///< columns held by this rank
    std::vector<PartDescriptor> parts;
    ActivationRule rule = ActivationRule::kNone;
    bool bias = false;
    bool deterministic = false;  ///< only kernels marked consistent may serve
};

}  // namespace conclave::quant
