// The activation pass: input rows in the form that kernels read, made once per (input, rule).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "quant/encoding.h"
#include "quant/kernels/vector_ops/op.h"
#include "runtime/base/executor.h"
#include "runtime/base/workspace.h"

namespace conclave::quant {

/// Rows of f32 input and their rounded forms. Forms live in the workspace given.
class PreparedInput {
  public:
    /// Row r begins at x + r * stride; `k` elements. `x` must stay as it is meanwhile.
    PreparedInput(const float* x, int64_t stride, int64_t rows, int64_t k, const VectorOps& ops,
                  Executor& executor, Workspace& workspace);

    int64_t rows() const { return rows_; }
    int64_t k() const { return k_; }
    const float* f32() const { return x_; }
    int64_t stride() const { return stride_; }

    /// rows() pointers, as GemmCall::x wants them for a matrix of this layout. From the thread that
    /// drives the rank only.
    const void* const* form(ActivationRule rule, XType type, const MatrixLayout& layout);
    /// The same for some of the rows, which are not kept for later calls where columns are
    /// permuted: experts that each have an order of their own would fill the workspace with rows
    /// they do not use.
    std::vector<const void*> form(ActivationRule rule, XType type, const MatrixLayout& layout,
                                  std::span<const int32_t> rows);

  private:
    struct Form {
        ActivationRule rule;
        XType type;
        const Grouping* groups;  ///< null where they make no difference
        const void* const* rows;
    };
    /// Bytes of a written row; 0 where x itself serves.
    int64_t row_bytes(ActivationRule rule, XType type, const Grouping* groups) const;
    void write_row(ActivationRule rule, XType type, const Grouping* groups, int64_t row,
                   std::byte* out) const;
    void write_int8(const Grouping& groups, const float* x, std::byte* out) const;

    const float* x_;
    int64_t stride_, rows_, k_;
    const VectorOps& ops_;
    Executor& executor_;
    Workspace& workspace_;
    std::vector<Form> forms_;
};

}  // namespace conclave::quant
