// A call of a matrix kernel that checks what it writes.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>

#include "quant/kernel.h"
#include "tests/quant/support.h"

namespace conclave::quant::test {

/// rows x (n1 - n0) results; fails if anything beside them was written.
inline std::vector<float> multiply(const Kernel& kernel, const std::byte* packed, int64_t n,
                                   const MatrixLayout& layout, const void* const* x, int64_t rows,
                                   int64_t n0, int64_t n1, int64_t gap = 0) {
    const int64_t width = n1 - n0, stride = width + gap, margin = 32;
    std::vector<float> out(static_cast<size_t>(2 * margin + rows * stride), kPoison);
    AlignedBytes scratch(kernel.scratch_bytes(layout));
    kernel.run({packed, n, &layout, x, rows, n0, n1, out.data() + margin, stride, scratch.data()});
    std::vector<float> result;
    for (int64_t i = 0; i < static_cast<int64_t>(out.size()); ++i) {
        const int64_t r = (i - margin) / std::max<int64_t>(stride, 1);
        const bool inside = i >= margin && r < rows && width > 0 && (i - margin) % stride < width;
        if (inside)
            result.push_back(out[i]);
        else if (bits(out[i]) != bits(kPoison))
            ADD_FAILURE() << "wrote " << i - margin << " floats from its output";
    }
    return result;
}

inline bool same(const float* a, const float* b, int64_t n) {
    return std::memcmp(a, b, static_cast<size_t>(n) * sizeof(float)) == 0;
}

/// The registry's kernels of one folder of quant/kernels.
inline std::vector<const Kernel*> family(const std::string& name) {
    std::vector<const Kernel*> kernels = KernelRegistry::built_in().kernels();
    std::erase_if(kernels, [&](const Kernel* k) { return k->family != name; });
    return kernels;
}

}  // namespace conclave::quant::test
