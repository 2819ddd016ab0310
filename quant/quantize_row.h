// The arithmetic of activation rules, for one row at a time: quantized to int8, or rounded and
// widened back to f32 ("fake-quantized"), element by element what the format's own tool gives.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/activation_rule.h"
#include "quant/grouping.h"
#include "quant/kernels/vector_ops/op.h"
#include "runtime/base/interval.h"

namespace conclave::quant {

/// Columns [columns.begin, columns.end) of logical rows of `width` columns.
struct RowSpan {
    Interval columns;
    int64_t width = 0;
};

/// Floats that a dynamic scale of whole rows of `width` columns is made of: max|x| of each group;
/// under kMinMax max(x) and max(-x). 0 for rules that are not dynamic.
int64_t statistics_per_row(const ActivationRule& rule, int64_t width);

/// What the columns held say: combined over all ranks that hold columns of the row by taking the
/// greatest, it is what quantize_row() wants. `out`: statistics_per_row() floats; -infinity for
/// groups of which no column is held; +infinity where an x is NaN or infinite.
void row_statistics(const ActivationRule& rule, const float* x, const RowSpan& span,
                    const VectorOps& ops, float* out);

/// Sets all bits of columns[i] where x[i] is an outlier; leaves the others as they are.
void mark_outliers(const ActivationRule& rule, const float* x, int64_t n, uint32_t* columns);

/// The fake-quantized row, in f32: out[i], i < span.columns.size(), may be x. `statistics`, of the
/// whole row, may be null where the rule is not dynamic. `outliers`: of the columns held, what
/// mark_outliers() made of all rows of the batch, from zeros; null: the row's own. Not for kBlocks.
void quantize_row(const ActivationRule& rule, const float* x, const RowSpan& span,
                  const float* statistics, const VectorOps& ops, float* out,
                  const uint32_t* outliers = nullptr);

/// The row as kernels of XType::kI8Row read it (quant/grouping.h), columns in the order of
/// `groups`. For int8 rules with one scale a row and no outliers; under kAmaxTimes that scale is
/// amax * f32(1 / top), so that its values differ from quantize_row()'s in their last bit.
void quantize_int8_row(const ActivationRule& rule, const float* x, const RowSpan& span,
                       const float* statistics, const Grouping& groups, const VectorOps& ops,
                       std::byte* out);

}  // namespace conclave::quant
