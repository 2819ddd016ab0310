// Random products for kernels, and what they come to by definition.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "quant/kernel.h"
#include "runtime/engine/conformance/memory.h"

namespace conclave::engine::conformance {

class Random;

/// All that a product is a function of.
struct KernelCase {
    int64_t n = 1, k = 1, rows = 1;
    int64_t n0 = 0, n1 = 1;  ///< columns of the result
    int64_t gap = 0;         ///< floats between rows of the result
    uint64_t seed = 0;

    /// `ranges`: with n0, n1 and gap.
    std::string text(bool ranges) const;
};

/// Weights in model format that the kernel says it serves, with gaps between their rows.
class KernelMatrix {
  public:
    /// Throws Skip where no encoding is found that the kernel serves.
    KernelMatrix(const quant::Kernel& kernel, const KernelCase& c);

    quant::CodeTile tile(int64_t row0, int64_t rows) const;
    const quant::MatrixLayout& layout() const { return part_.layout; }
    const quant::PartDescriptor& part() const { return part_; }
    int64_t n() const { return n_; }
    int64_t k() const { return part_.layout.k; }
    /// "int4 g32, runs of 32 5 columns"
    std::string text() const;
    /// Row j: its numbers, and for each the size of what its rounding errors are relative to.
    void row(int64_t j, std::vector<float>& numbers, std::vector<double>& magnitudes) const;

  private:
    bool choose(const quant::Kernel& kernel, Random& random);
    void fill_codes(Random& random);
    void fill_factors(Random& random);
    int64_t factor_at(int64_t row, int64_t group) const {
        return row * stride_ + group - first_group_;
    }

    int64_t n_;
    quant::PartDescriptor part_;
    int64_t row_bytes_ = 0, stride_ = 0, first_group_ = 0;
    std::vector<std::byte> codes_;
    std::vector<float> scales_, zeros_;
};

/// Rows of input in the form that a kernel reads, each ending at a page that may not be touched.
class KernelRows {
  public:
    KernelRows(const quant::Kernel& kernel, const KernelMatrix& w, int64_t count, uint64_t seed);

    const void* const* pointers() const { return pointers_.data(); }
    /// What row r stands for, by logical column, and what its errors are relative to.
    void row(int64_t r, std::vector<double>& numbers, std::vector<double>& magnitudes) const;

  private:
    quant::XType type_;
    const KernelMatrix& w_;
    std::vector<GuardedBytes> memory_;
    std::vector<const void*> pointers_;
};

}  // namespace conclave::engine::conformance
