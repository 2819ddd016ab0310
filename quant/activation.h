// The activation pass: input rows in the form that kernels read, made once per (input, rule).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "quant/encoding.h"
#include "quant/kernels/vector_ops/op.h"
#include "quant/quantize_row.h"
#include "runtime/base/executor.h"
#include "runtime/base/workspace.h"

namespace conclave::quant {

/// Rows of f32 input and their rounded forms. Forms live in the workspace given.
class PreparedInput {
  public:
    virtual ~PreparedInput() = default;

    /// Row r begins at x + r * stride; `k` elements. `x` must stay as it is meanwhile.
    PreparedInput(const float* x, int64_t stride, int64_t rows, int64_t k, const VectorOps& ops,
                  Executor& executor, Workspace& workspace);

    /// Says which columns of longer rows these are, for rules whose groups run over whole rows.
    void place(const RowSpan& span) { span_ = span; }
    /// Statistics of the whole rows (quantize_row.h), where other ranks hold columns, too: those of
    /// row r at statistics + r * per_row, for the rule that the row is prepared under; -infinity
    /// where the columns held here are all that the row's scales need. They must stay meanwhile.
    void set_statistics(const float* statistics, int64_t per_row) {
        statistics_ = statistics, statistics_per_row_ = per_row;
    }

    /// What the columns held say of row r, for set_statistics() after an exchange: per_row floats.
    void statistics_of(const ActivationRule& rule, const MatrixLayout& layout, int64_t r,
                       float* out) const;

    int64_t rows() const { return rows_; }
    int64_t k() const { return k_; }
    const float* f32() const { return x_; }
    const float* row(int64_t r) const { return x_ + r * stride_; }
    int64_t stride() const { return stride_; }
    const RowSpan& span() const { return span_; }

    /// rows() pointers, as GemmCall::x wants them for a matrix of this layout. From the thread that
    /// drives the rank only.
    /// (Virtual, so that methods of plugins reach it without linking with the engine.)
    virtual const void* const* form(const ActivationRule& rule, XType type,
                                    const MatrixLayout& layout);
    /// The same for some of the rows. They are not kept for later calls where the form is likely to
    /// serve this matrix alone (columns in an order of their own, calibrated or column scales,
    /// outliers of these rows): experts that each have theirs would fill the workspace with rows
    /// they do not use.
    virtual std::vector<const void*> form(const ActivationRule& rule, XType type,
                                          const MatrixLayout& layout,
                                          std::span<const int32_t> rows);

  private:
    /// What a form is a function of.
    struct Key {
        ActivationRule rule;
        XType type = XType::kF32;
        const Grouping* groups = nullptr;  ///< null where they make no difference
        const std::vector<float>* column_scale = nullptr;

        bool same_as(const Key& other) const;
    };
    struct Form {
        Key key;
        const void* const* rows;
    };
    static Key key_of(const ActivationRule& rule, XType type, const MatrixLayout& layout);
    const Form* find(const Key& key) const;
    /// Bytes of a written row; 0 where x itself serves.
    int64_t row_bytes(const Key& key) const;
    /// Outlier columns of the rows together; null where the rule has none, or each row its own.
    const uint32_t* batch_outliers(const Key& key, int64_t count,
                                   FunctionRef<int64_t(int64_t)> row);
    void write_row(const Key& key, int64_t row, const uint32_t* outliers, std::byte* out) const;
    /// Row r times the scales of its columns, which need room in `scaled`.
    const float* scaled_row(int64_t r, const std::vector<float>* column_scale,
                            std::vector<float>& scaled) const;
    void write_f32(const Key& key, const float* x, int64_t row, const uint32_t* outliers,
                   float* out) const;
    void write_int8(const Grouping& groups, const float* x, std::byte* out) const;
    /// Of row `row` for a dynamic rule: what was set, else made in `own`.
    const float* statistics(const ActivationRule& rule, const float* x, int64_t row,
                            std::vector<float>& own) const;

    const float* x_;
    int64_t stride_, rows_, k_;
    RowSpan span_;
    const VectorOps& ops_;
    Executor& executor_;
    Workspace& workspace_;
    const float* statistics_ = nullptr;
    int64_t statistics_per_row_ = 0;
    std::vector<Form> forms_;
};

}  // namespace conclave::quant
