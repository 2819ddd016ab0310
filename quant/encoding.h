// How numbers are stored: the vocabulary that checkpoint formats and kernels share.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "quant/activation_rule.h"
#include "quant/grouping.h"

namespace conclave::quant {

/// The type of one code of a weight, as it is kept in memory.
enum class CodeType : uint8_t {
    kF32,
    kF16,
    kBF16,
    kU4,  ///< unsigned integers
    kU8,
    kT4,     ///< 4-bit index into Encoding::levels
    kE4M3,   ///< E4M3FN: bias 7, subnormals, NaN 0x7f and 0xff, no infinities
    kE4M3N,  ///< as kE4M3, but 0x7f and 0xff are 480 and -480: DeepSpeed's, and its 0
    kU2,     ///< unsigned integers, packed as tightly: GGUF's
    kU3,
    kU5,
    kU6,
};
constexpr CodeType kLastCode = CodeType::kU6;

constexpr int code_bits(CodeType t) {
    return t == CodeType::kF32                           ? 32
           : t == CodeType::kF16 || t == CodeType::kBF16 ? 16
           : t == CodeType::kU4 || t == CodeType::kT4    ? 4
           : t == CodeType::kU2                          ? 2
           : t == CodeType::kU3                          ? 3
           : t == CodeType::kU5                          ? 5
           : t == CodeType::kU6                          ? 6
                                                         : 8;
}
constexpr bool is_integer(CodeType t) {
    return t == CodeType::kU4 || t == CodeType::kU8 || (t >= CodeType::kU2 && t <= CodeType::kU6);
}
/// Whether codes stand for numbers through scales; else they are the numbers themselves.
constexpr bool is_scaled(CodeType t) {
    return t != CodeType::kF32 && t != CodeType::kF16 && t != CodeType::kBF16;
}
const char* code_name(CodeType t);  ///< "f32", "f16", "bf16", "u4", "u8", "t4", "e4m3", "e4m3n"

/// What the 16 codes of kT4 stand for.
struct Codebook {
    std::string name;  ///< "fp4", "nf4"
    std::array<float, 16> levels{};
    /// The levels are steps[i] * step exactly, |steps[i]| <= 127; step is 0 where no power of two
    /// does that.
    std::array<int8_t, 16> steps{};
    float step = 0;
};
/// Finds the step.
std::shared_ptr<const Codebook> make_codebook(std::string name,
                                              const std::array<float, 16>& levels);
/// E2M1, OCP Microscaling Formats 1.0: 0, 0.5, 1, 1.5, 2, 3, 4, 6; bit 3 is the sign (8 is -0).
std::shared_ptr<const Codebook> fp4_codebook();

/// The type of a group's scale or zero, as it is stored and kept.
enum class FactorType : uint8_t {
    kNone,
    kF32,
    kF16,
    kBF16,
    kU8,    ///< zeros only: integers
    kE4M3,  ///< scales only; with a GlobalScale
    kE8M0,  ///< scales only: 2^(byte - 127); 255 is NaN
    kI8,    ///< scales under super-scales only: integers
};
constexpr int factor_bytes(FactorType t) {
    return t == FactorType::kNone                            ? 0
           : t == FactorType::kF32                           ? 4
           : t == FactorType::kF16 || t == FactorType::kBF16 ? 2
                                                             : 1;
}

/// A second scale, of a whole matrix. The scale of a group is (stored * multiplier) / divisor, each
/// operation rounded to f32; one of the two is 1.
struct GlobalScale {
    float multiplier = 1, divisor = 1;
    /// By definition it is not the stored scale but its product with the code that is multiplied
    /// and divided. Weights are dequantized so; kernels apply of() all the same, and what they
    /// multiply with differs from that by two roundings at most.
    bool last = false;
    bool operator==(const GlobalScale&) const = default;
    float of(float stored) const { return stored * multiplier / divisor; }
};

/// How the codes of a matrix stand for numbers. A float weight is its own code. With the scale s of
/// a code's group and its zero z, each product and sum rounded to f32:
///   unsigned integer q   (q - z) * s, or with added zeros (q - zero_point) * s + z
///   kT4                  levels[q] * s
///   kE4M3, kE4M3N        value(q) * s
struct Encoding {
    CodeType code = CodeType::kF32;
    int bits = 0;                          ///< of the stored integer codes, 1 .. 8; 0: floats
    FactorType scale = FactorType::kNone;  ///< kNone where codes are numbers themselves
    /// Integer codes only. kU8: integers, one a group. Floats: one a group, subtracted in f32 (HQQ)
    /// or added (zero_added). kNone: zero_point.
    FactorType zero = FactorType::kNone;
    int zero_point = 0;       ///< of all groups, where zero is kNone or added
    int64_t group = 0;        ///< columns of a group; 0: one group spans them all
    bool permuted = false;    ///< columns belong to groups in an order of their own (act-order)
    bool zero_added = false;  ///< zero, a float type, is added after scaling
    /// Integer codes only: products keep the sign of a 0, as GGUF has it; else no 0 is negative.
    /// For decoded weights; no sum depends on it.
    bool signed_zeros = false;
    std::shared_ptr<const Codebook> levels = {};  ///< of kT4
    /// Rows that share their stored scales, 0: all of them. For people: every row keeps its own.
    int64_t group_rows = 1;
    /// > 0, a power of two: so many neighbouring groups share a super-scale of type f16. The scale
    /// of a group is an integer (kI8) times it; its zero, if there are any, which is added then, an
    /// integer (kU8) times minus a super-zero, also shared and f16. Both products are exact in f32.
    int super = 0;

    bool operator==(const Encoding&) const = default;
    /// "bf16", "int4 g32", "int4 g128 asym", "int8 channel", "fp8 128x128", "fp4 g16 e4m3" ...
    std::string to_string() const;
};

/// The type in which a kernel reads its input rows. kI8: int8 with a scale per block of 32 columns;
/// kI8Row: int8 with one scale and zero per row (quant/grouping.h has both forms).
enum class XType : uint8_t { kF32, kBF16, kI8, kI8Row };

const char* x_type_name(XType t);  ///< "f32", "bf16", "int8", "int8 rows"

/// The rule for inputs of a matrix whose format has none of its own: int8 blocks for codes that are
/// integers (times a step), bf16 for bf16 weights, else f32. `own`, the format's rule, comes first
/// under auto; under int8, where int8 blocks cannot serve. `deterministic`: a row's form must not
/// depend on the batch.
ActivationRule choose_activation_rule(const Encoding& encoding, const ActivationRule* own,
                                      Activations policy, bool deterministic = false);

/// What the layout of a packed matrix of n rows is a function of.
struct MatrixLayout {
    int64_t k = 0;  ///< columns held by this rank
    Encoding encoding = {};
    std::shared_ptr<const Grouping> groups = {};  ///< of those columns; null unless is_scaled()
    GlobalScale global = {};
    /// One per column held, by which its input is multiplied before all else (AWQ's
    /// pre_quant_scale); null: none.
    std::shared_ptr<const std::vector<float>> column_scale = {};
};

/// One logical matrix inside a (possibly fused) linear: y_part = x W_part^T, W_part [n, k].
struct PartDescriptor {
    std::string name;  ///< "q_proj", "gate_proj", ...
    int64_t n = 0;     ///< rows held by this rank
    MatrixLayout layout;
    ActivationRule rule = {};
};

/// All that a kernel may depend on.
struct LinearDescriptor {
    std::vector<PartDescriptor> parts;
    bool bias = false;
    bool deterministic = false;  ///< only kernels marked consistent may serve
};

}  // namespace conclave::quant
