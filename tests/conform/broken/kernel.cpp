// A kernel for toy's matrices: weights are kept as f32, in kernel order.
#include "tests/conform/broken/toy.h"

namespace toy {
namespace {

using namespace conclave::quant;

size_t packed_bytes(int64_t n, const MatrixLayout& layout) {
    return static_cast<size_t>(n * layout.k) * 4 + (has("kernel-unwritten") ? 8 : 0);
}

void pack(std::byte* packed, int64_t n, const MatrixLayout& layout, int64_t row0,
          const CodeTile& tile) {
    if (has("kernel-pack") && row0 == 0) std::memset(packed, 0, packed_bytes(n, layout));
    auto* out = reinterpret_cast<float*>(packed) + row0 * layout.k;
    const auto& order = layout.groups->order;
    for (int64_t r = 0; r < tile.rows; ++r) {
        int64_t c = 0;
        for (const Run& run : layout.groups->runs)
            for (const int64_t end = c + run.columns; c < end; ++c) {
                const int64_t at = order.empty() ? c : order[static_cast<size_t>(c)];
                const auto code = static_cast<size_t>(tile.codes[r * tile.row_bytes + at]);
                *out++ = layout.encoding.levels->levels[code & 15] *
                         tile.scales[r * tile.factor_stride + run.group - tile.first_group];
            }
    }
    if (has("kernel-pack-beyond") && row0 + tile.rows == n) *out = 0;
}

void run(const GemmCall& call) {
    const int64_t k = call.layout->k;
    if (has("kernel-ud2") && call.n > 3) __builtin_trap();
    for (volatile int64_t i = 0; has("kernel-loop") && k > 5 && i < 1;) i = 0;
    for (int64_t r = 0; r < call.rows; ++r) {
        const auto* x = static_cast<const float*>(call.x[r]);
        float* out = call.out + r * call.out_stride;
        for (int64_t j = call.n0; j < call.n1; ++j) {
            const int64_t row = has("kernel-range") ? j - call.n0 : j;
            const auto* w = reinterpret_cast<const float*>(call.packed) + row * k;
            const bool tail = has("kernel-tail") && j == call.n - 1 && call.n % 2;
            float sum = 0;
            if (has("kernel-order") && call.rows > 1)
                for (int64_t c = k; c-- > 0;) sum += w[c] * x[c];
            else
                for (int64_t c = 0; c < (tail ? k - 1 : k); ++c) sum += w[c] * x[c];
            out[j - call.n0] = sum;
        }
        if (has("kernel-outside") && call.n1 > call.n0 && r + 1 < call.rows)
            out[call.n1 - call.n0] = 0;
        if (has("kernel-scratch")) *reinterpret_cast<float*>(call.scratch) = 0;
    }
}

const char* refusal(const PartDescriptor& part) {
    if (part.layout.encoding.scale != FactorType::kF32) return "its scales are f32";
    if (has("kernel-refusal") && part.n > 100) return "its rows are few";
    return nullptr;
}

}  // namespace

const Kernel& kernel() {
    static const Kernel k{.name = "toy_kernel",
                          .family = "toy",
                          .isa = conclave::Isa::kGeneric,
                          .code = CodeType::kT4,
                          .x = XType::kF32,
                          .consistent = true,
                          .row_block = 4,
                          .packed_bytes = packed_bytes,
                          .pack = pack,
                          .scratch_bytes = [](const MatrixLayout&) { return size_t{0}; },
                          .run = run,
                          .refusal = refusal};
    return k;
}

}  // namespace toy
