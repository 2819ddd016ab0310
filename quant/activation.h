// The activation pass: input rows in the form that kernels read, made once per (input, rule).
#pragma once
#include <cstdint>
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

    /// rows() pointers, as GemmCall::x wants them. From the thread that drives the rank only.
    const void* const* form(ActivationRule rule, XType type);

  private:
    const void* const* make(ActivationRule rule, XType type);

    const float* x_;
    int64_t stride_, rows_, k_;
    const VectorOps& ops_;
    Executor& executor_;
    Workspace& workspace_;
    const void* const* forms_[2][2] = {};  // [rule][type]
};

}  // namespace conclave::quant
