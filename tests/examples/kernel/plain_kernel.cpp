// A kernel from a plugin: bf16 weights as they are, times rows of f32, one product after another.
#include <conclave/plugin.h>

#include <cstring>

namespace {

using namespace conclave;
using namespace conclave::quant;

size_t packed_bytes(int64_t n, const MatrixLayout& layout) { return size_t(n * layout.k * 2); }

void pack(std::byte* packed, int64_t, const MatrixLayout& layout, int64_t row0,
          const CodeTile& tile) {
    const int64_t bytes = layout.k * 2;
    for (int64_t r = 0; r < tile.rows; ++r)
        std::memcpy(packed + (row0 + r) * bytes, tile.codes + r * tile.row_bytes, size_t(bytes));
}

size_t scratch_bytes(const MatrixLayout&) { return 0; }

void run(const GemmCall& call) {
    const int64_t k = call.layout->k;
    for (int64_t r = 0; r < call.rows; ++r) {
        const auto* x = static_cast<const float*>(call.x[r]);
        float* out = call.out + r * call.out_stride;
        for (int64_t j = call.n0; j < call.n1; ++j) {
            const std::byte* row = call.packed + j * k * 2;
            float sum = 0;
            for (int64_t i = 0; i < k; ++i) {
                uint16_t w;
                std::memcpy(&w, row + i * 2, 2);
                sum += x[i] * bf16_to_f32(w);
            }
            out[j - call.n0] = sum;
        }
    }
}

constexpr Kernel kKernel = {.name = "example_bf16_f32",
                            .family = "example",
                            .isa = Isa::kGeneric,
                            .code = CodeType::kBF16,
                            .x = XType::kF32,
                            .consistent = true,
                            .row_block = 1,
                            .packed_bytes = packed_bytes,
                            .pack = pack,
                            .scratch_bytes = scratch_bytes,
                            .run = run};

}  // namespace

CONCLAVE_PLUGIN("example-kernel", "1", "a plain kernel for bf16 weights; for tests") {
    plugin.add_kernel(kKernel);
}
