// What formats ask of stored tensors, and numbers in staged bytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "quant/codec.h"

namespace conclave::quant {

std::string shape_text(const std::vector<int64_t>& shape);  ///< "[2, 3]"

/// The header of a tensor that has to be there in this shape and type; an empty `dtype` takes any.
/// Throws kBadContent, and kUnsupported for the type.
TensorHeader expect_tensor(const TensorLookup& tensors, const std::string& name,
                           const std::vector<int64_t>& shape, const std::string& dtype = "");

/// The type of scales or float zeros. Throws kUnsupported for any but F32, F16 and BF16.
FactorType float_factor(const std::string& name, const TensorHeader& header);

/// The `count` elements of a small tensor of integers or booleans, whatever its shape; nullopt
/// where it is absent.
std::optional<std::vector<int64_t>> read_integers(const TensorLookup& tensors,
                                                  const std::string& name, int64_t count);

/// The one number of a tensor of F32, F16, BF16 or an integer type, of shape [], [1] or [1, 1];
/// nullopt where it is absent, 1 where the lookup wants no values. It may be one that is not
/// finite. Throws kBadContent for another shape.
std::optional<float> read_scalar(const TensorLookup& tensors, const std::string& name);

/// Those of stem + suffix that exist become companions.
void add_companions(StoredMatrix& matrix, const TensorLookup& tensors, const std::string& stem,
                    std::initializer_list<const char*> suffixes);

float read_factor(FactorType type, const std::byte* from);  ///< kF32, kF16, kBF16; any alignment
void write_factor(FactorType type, float value, std::byte* to);

/// Bytes from one decoded row of `columns` codes to the next: an odd number of cache lines, so that
/// a column of codes spreads over the sets of the cache.
constexpr int64_t decoded_row_bytes(int64_t columns) { return (ceil_div(columns, 64) | 1) * 64; }

/// A generated weight's scale: random codes of `bits` bits then have variance 1 / k, so that
/// products with inputs of unit variance sum to unit variance.
float generated_scale(int bits, int64_t k);

}  // namespace conclave::quant
