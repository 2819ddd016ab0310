// A kernel multiplies rows of x with a packed matrix: a serial function without threads,
// allocation or collectives. Layers own the parallel loop (sharding/ for linears, moe/ for
// experts) and call run() for ranges of columns.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quant/encoding.h"
#include "runtime/base/cpu.h"

namespace conclave::quant {

/// A horizontal slice of a matrix in model format: `rows` whole rows of `cols` codes. Scaled codes
/// are one byte each, whatever their bits, in the order of the logical columns (not in kernel
/// order).
struct CodeTile {
    const std::byte* codes = nullptr;  ///< row r begins at codes + r * row_bytes; any alignment
    int64_t row_bytes = 0;
    int64_t rows = 0;
    int64_t cols = 0;
    /// Scale of row r and stored group g: scales[r * factor_stride + g - first_group], widened
    /// exactly to f32 (without the global scale). Zeros likewise; null where there are none.
    const float* scales = nullptr;
    const float* zeros = nullptr;
    int64_t factor_stride = 0, first_group = 0;
    /// Under Encoding::super, where scales and zeros are products: the super-scale of row r and
    /// super-block s = g / super is super_scales[r * super_stride + s - first_super]; super-zeros
    /// likewise.
    const float* super_scales = nullptr;
    const float* super_zeros = nullptr;
    int64_t super_stride = 0, first_super = 0;
};

/// out[r][j - n0] = sum over columns i of x[r][i] * W[j][i], for j in [n0, n1), r in [0, rows).
struct GemmCall {
    const std::byte* packed = nullptr;  ///< 64-byte aligned, as pack() left it
    int64_t n = 0;                      ///< rows of the packed matrix
    const MatrixLayout* layout = nullptr;
    /// `rows` pointers to layout->k elements of the kernel's XType (kBF16: k rounded up to even,
    /// the odd one zero; kF32 under a grouping: in kernel order; kI8: see int8_row_bytes(); kI8Row:
    /// see int8_whole_row_bytes()). 4-byte
    /// aligned; nothing beyond is read.
    const void* const* x = nullptr;
    int64_t rows = 0;
    int64_t n0 = 0, n1 = 0;        ///< any columns with 0 <= n0 <= n1 <= n
    float* out = nullptr;          ///< where (row 0, column n0) goes; 4-byte aligned
    int64_t out_stride = 0;        ///< floats from one row to the next
    std::byte* scratch = nullptr;  ///< scratch_bytes(layout), 64-byte aligned
};

struct Kernel {
    const char* name;    ///< "panel_bf16_avx512"
    const char* family;  ///< folder under quant/kernels
    Isa isa;
    CodeType code;  ///< the codes it can compute
    XType x;        ///< the input it reads
    /// Each output element is a function of its x row and W row only, summed over the whole K in
    /// one order that is the same for every M, N, offset, tile remainder and regime.
    bool consistent;
    int64_t row_block;  ///< pack() is called with row0 a multiple of this
    size_t (*packed_bytes)(int64_t n, const MatrixLayout& layout);
    /// Puts rows [row0, row0 + tile.rows) of an [n, k] matrix into place; tile.cols == layout.k.
    /// Tiles of one matrix may be packed concurrently. Every byte of packed_bytes(n, layout) is
    /// written by the time that all rows were packed.
    void (*pack)(std::byte* packed, int64_t n, const MatrixLayout& layout, int64_t row0,
                 const CodeTile& tile);
    size_t (*scratch_bytes)(const MatrixLayout& layout);
    void (*run)(const GemmCall& call);
    /// Why the kernel cannot serve a part of its code type and input, in words for people, or null;
    /// null: it serves all of them. What it says must not depend on n.
    const char* (*refusal)(const PartDescriptor& part) = nullptr;
    bool super = false;  ///< serves Encoding::super
};

/// Why a kernel does not serve a request.
struct KernelRefusal {
    const Kernel* kernel;
    std::vector<std::string> reasons;  ///< all of them
};

struct KernelChoice {
    const Kernel* kernel = nullptr;  ///< null: none can serve
    std::vector<KernelRefusal> refused;
};

/// All reasons why `kernel` cannot serve `part` of a linear on this CPU; empty: it can.
std::vector<std::string> can_implement(const Kernel& kernel, const LinearDescriptor& linear,
                                       const PartDescriptor& part, CpuFeatures cpu);

/// Kernels in order of preference. An ordinary object: engines own theirs, tests make their own.
class KernelRegistry {
  public:
    /// Every kernel of quant/kernels, best first.
    static KernelRegistry built_in();

    void add_front(const Kernel* kernel) { kernels_.insert(kernels_.begin(), kernel); }
    void add(const Kernel* kernel) { kernels_.push_back(kernel); }
    const std::vector<const Kernel*>& kernels() const { return kernels_; }
    const Kernel* find(std::string_view name) const;

    /// The first kernel that can serve, with the reasons of those asked and refused before it
    /// and of all the others.
    KernelChoice select(const LinearDescriptor& linear, const PartDescriptor& part,
                        CpuFeatures cpu) const;

  private:
    std::vector<const Kernel*> kernels_;
};

}  // namespace conclave::quant
