// What FP8, ModelOpt, Quark and gpt-oss have in common: matrices of float codes, the rules of their
// inputs, tensors that stand beside them.
#pragma once
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "quant/codec.h"
#include "quant/formats/scaled_codec.h"

namespace conclave::quant {

bool is_float_dtype(const std::string& dtype);  ///< BF16, F16, F32: a weight left as it is

/// The tensor that keeps the matrix's codes or numbers: the stem, or STEM.weight.
std::string weight_name(const MatrixSource& source);
/// The first of stem + suffix that is there, else stem + the first suffix.
std::string first_tensor(const TensorLookup& tensors, const std::string& stem,
                         std::initializer_list<const char*> suffixes);

/// What scales may be of: numbers (F32, F16, BF16), E8M0 or E4M3.
enum class ScaleKind : uint8_t { kFloat, kFloatOrE8M0, kE8M0, kE4M3 };

/// One scale of the whole matrix, of each row, or as the tensor's shape says, of these two.
enum class ScaleSpan : uint8_t { kMatrix, kRows, kEither };
/// Sets encoding.group_rows, and group to 0.
void set_scale_span(const MatrixSource& source, const TensorLookup& tensors,
                    const std::string& scales, ScaleSpan span, Encoding& encoding);

/// expect_scale_grid() for scales of one kind.
void expect_scales(const MatrixSource& source, const TensorLookup& tensors,
                   const std::string& scales, ScaleKind kind, Encoding& encoding);

/// F8_E4M3 [n, k]; group and group_rows as `grid` has them.
StoredMatrix fp8_matrix(const MatrixSource& source, const TensorLookup& tensors,
                        const std::string& scales, ScaleKind kind, Encoding grid);
/// U8 [n, k / 2], two codes of E2M1 a byte, and a scale for each `group` columns of a row.
StoredMatrix fp4_matrix(const MatrixSource& source, const TensorLookup& tensors,
                        const std::string& scales, ScaleKind kind, int64_t group);
/// The same with scales of F8_E4M3, times STEM.weight_scale_2.
StoredMatrix nvfp4_matrix(const MatrixSource& source, const TensorLookup& tensors,
                          const std::string& scales, int64_t group);
Encoding fp8_encoding(FactorType scale, int64_t group, int64_t group_rows);
Encoding fp4_encoding(FactorType scale, int64_t group);

/// A calibrated scale of inputs. Nothing for a matrix of an expert without a finite one above 0:
/// calibration never reached it, and it gets no rule. Elsewhere that is kBadContent.
std::optional<float> input_scale(const MatrixSource& source, const TensorLookup& tensors,
                                 const std::string& name);
/// `rule` with that scale; nothing without.
std::optional<ActivationRule> static_rule(ActivationRule rule, std::optional<float> scale);
/// That of int8 inputs. Throws kBadContent where it is missing or no whole number of int8.
float input_zero_point(const TensorLookup& tensors, const std::string& name);

// Rules of inputs; those without `scale` set for static_rule().
ActivationRule static_fp8_input();
ActivationRule token_fp8_input();
/// As one sees it with DeepSeek's blocks: amax at least 1e-10; scale_fmt "ue8m0": powers of two.
ActivationRule group_fp8_input(int64_t group, bool powers_of_two);

/// ModelOpt's and Quark's NVFP4: groups of 16, the scale of static_rule() the global one.
ActivationRule nvfp4_input();

/// The numbers of a tensor of `count` elements of a float type. Throws kBadContent for what is not
/// finite.
std::vector<float> read_factors(const TensorLookup& tensors, const std::string& name,
                                FactorType type, int64_t count);

/// Calibrated scales of a KV cache become companions: it stays in higher precision here.
void add_cache_scales(StoredMatrix& matrix, const TensorLookup& tensors);

}  // namespace conclave::quant
