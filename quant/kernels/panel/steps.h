// Step types of the f32-input kernels: one column of W times one element of x.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace conclave::quant::panel {
namespace {

template <class S>
struct StepBase {
    using Simd = S;
    using V = typename S::V;
    using W = V;  ///< a step of one panel, unpacked
    static int64_t steps(int64_t k) { return k; }
    static void keep(std::byte* to, W w) { S::store_bytes(to, w); }
    static W kept(const std::byte* from) { return S::load_f32(from); }
    static V step(V acc, W w, const std::byte* x) {
        float value;
        std::memcpy(&value, x, sizeof value);
        return S::fma(w, S::set1(value), acc);
    }
};

template <class S>
struct F32Step : StepBase<S> {
    static constexpr int64_t kBytes = 64;  ///< packed bytes of a step of one panel
    static typename S::V load(const std::byte* p) { return S::load_f32(p); }
};
template <class S>
struct F16Step : StepBase<S> {
    static constexpr int64_t kBytes = 32;
    static typename S::V load(const std::byte* p) { return S::load_f16(p); }
};
template <class S>
struct BF16Step : StepBase<S> {
    static constexpr int64_t kBytes = 32;
    static typename S::V load(const std::byte* p) { return S::load_bf16(p); }
};

}  // namespace
}  // namespace conclave::quant::panel
