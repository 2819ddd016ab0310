// The row operations, written once over a vector type S of quant/simd. Internal linkage.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "quant/kernels/vector_ops/op.h"
#include "quant/simd/math.h"

namespace conclave::quant {
namespace {

template <class S>
struct RowOps {
    using V = typename S::V;

    static void rms_norm(const float* x, const float* w, float eps, int64_t n, float* out) {
        V squares = S::zero();
        by_16(n, [&](int64_t i, int count) {
            const V v = load_n<S>(x + i, count);
            squares = S::fma(v, v, squares);
        });
        const V mean = S::div(S::set1(S::sum(squares)), S::set1(static_cast<float>(n)));
        const V factor = S::div(S::set1(1.0f), S::sqrt(S::add(mean, S::set1(eps))));
        by_16(n, [&](int64_t i, int count) {
            const V v = S::mul(load_n<S>(x + i, count), factor);
            store_n<S>(out + i, count, S::mul(load_n<S>(w + i, count), v));
        });
    }

    static void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
        by_16(n, [&](int64_t i, int count) {
            const V g = load_n<S>(gate + i, count);
            const V u = load_n<S>(up + i, count);
            const V e = exp<S>(S::sub(S::zero(), g));
            store_n<S>(out + i, count, S::mul(S::div(g, S::add(S::set1(1.0f), e)), u));
        });
    }

    static void add(const float* x, int64_t n, float* y) {
        by_16(n, [&](int64_t i, int count) {
            store_n<S>(y + i, count, S::add(load_n<S>(y + i, count), load_n<S>(x + i, count)));
        });
    }

    static void scale(float a, const float* x, int64_t n, float* y) {
        const V factor = S::set1(a);
        by_16(n, [&](int64_t i, int count) {
            store_n<S>(y + i, count, S::mul(factor, load_n<S>(x + i, count)));
        });
    }

    static void rope_half(float* x, const float* cos, const float* sin, int64_t half) {
        by_16(half, [&](int64_t i, int count) {
            const V c = load_n<S>(cos + i, count), s = load_n<S>(sin + i, count);
            const V a = load_n<S>(x + i, count), b = load_n<S>(x + half + i, count);
            store_n<S>(x + i, count, S::sub(S::mul(a, c), S::mul(b, s)));
            store_n<S>(x + half + i, count, S::add(S::mul(b, c), S::mul(a, s)));
        });
    }

    static void softmax(float* x, int64_t n) {
        constexpr float kNone = -__builtin_inff();
        const auto load = [&](int64_t i, int count) {
            return count == 16 ? S::load(x + i) : load_or<S>(x + i, count, kNone);
        };
        V most = S::set1(kNone);
        by_16(n, [&](int64_t i, int count) { most = S::max(most, load(i, count)); });
        const V max = S::set1(max_lane<S>(most));
        V sum = S::zero();
        by_16(n, [&](int64_t i, int count) {
            const V e = exp<S>(S::sub(load(i, count), max));
            sum = S::add(sum, e);
            store_n<S>(x + i, count, e);
        });
        const V total = S::set1(S::sum(sum));
        by_16(n, [&](int64_t i, int count) {
            store_n<S>(x + i, count, S::div(load_n<S>(x + i, count), total));
        });
    }

    static void round_bf16(const float* x, int64_t n, float* out) {
        by_16(n, [&](int64_t i, int count) {
            store_n<S>(out + i, count, S::round_bf16(load_n<S>(x + i, count)));
        });
    }
    static void to_bf16(const float* x, int64_t n, uint16_t* out) {
        by_16(n, [&](int64_t i, int count) {
            S::store_bf16_part(out + i, count, load_n<S>(x + i, count));
        });
    }
    static void to_f16(const float* x, int64_t n, uint16_t* out) {
        by_16(n, [&](int64_t i, int count) {
            S::store_f16_part(out + i, count, load_n<S>(x + i, count));
        });
    }
    static void to_int8(const float* x, int64_t n, int8_t* q, float* scale, float* sum) {
        constexpr float kLeast = 1e-30f;       // 127 / max stays finite
        constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
        V v[2] = {S::zero(), S::zero()};
        by_16(n, [&](int64_t i, int count) { v[i / 16] = load_n<S>(x + i, count); });
        const V size[2] = {S::max(v[0], S::sub(S::zero(), v[0])),
                           S::max(v[1], S::sub(S::zero(), v[1]))};
        // 0, or NaN as soon as an x is not finite
        const V strange = S::add(S::mul(v[0], S::zero()), S::mul(v[1], S::zero()));
        const bool finite = S::sum(strange) == 0;
        const float most = S::most(S::max(size[0], size[1]));
        if (!finite || most < kLeast) {
            for (int64_t i = 0; i < n; ++i) q[i] = 0;
            *scale = finite ? 0 : __builtin_nanf("");
            *sum = 0;
            return;
        }
        const V factor = S::set1(127.0f / most), magic = S::set1(kMagic);
        for (V& part : v) part = S::sub(S::add(S::mul(part, factor), magic), magic);
        by_16(n, [&](int64_t i, int count) { S::store_i8_part(q + i, count, v[i / 16]); });
        *scale = most / 127.0f;
        *sum = S::sum(S::add(v[0], v[1]));  // exact
    }
    static void from_bf16(const uint16_t* x, int64_t n, float* out) {
        by_16(n, [&](int64_t i, int count) {
            const auto* p = reinterpret_cast<const std::byte*>(x + i);
            const V v = count == 16 ? S::load_bf16(p) : S::load_bf16_part(p, count);
            store_n<S>(out + i, count, v);
        });
    }
    static void from_f16(const uint16_t* x, int64_t n, float* out) {
        by_16(n, [&](int64_t i, int count) {
            const auto* p = reinterpret_cast<const std::byte*>(x + i);
            const V v = count == 16 ? S::load_f16(p) : S::load_f16_part(p, count);
            store_n<S>(out + i, count, v);
        });
    }

    /// NaN or 0 in every lane: NaN where x was not finite.
    static V strange(V so_far, V x) { return S::add(so_far, S::mul(x, S::zero())); }
    static V size(V x) { return S::max(x, S::sub(S::zero(), x)); }

    static void group_amax(const float* x, int64_t n, int64_t group, float* out) {
        V odd = S::zero();
        for (int64_t c = 0, g = 0; c < n; c += group, ++g) {
            V most = S::zero();
            by_16(std::min(group, n - c), [&](int64_t i, int count) {
                const V v = load_n<S>(x + c + i, count);
                most = S::max(size(v), most);
                odd = strange(odd, v);
            });
            out[g] = S::most(most);
        }
        if (S::sum(odd) == 0) return;
        for (int64_t c = 0; c < n; ++c)
            if (!(x[c] * 0 == 0)) out[c / group] = __builtin_inff();
    }

    static void range(const float* x, int64_t n, float* most, float* most_negated) {
        const V none = S::set1(-__builtin_inff());
        V odd = S::zero(), high = none, low = none;
        by_16(n, [&](int64_t i, int count) {
            const V v = count == 16 ? S::load(x + i) : load_or<S>(x + i, count, x[i]);
            high = S::max(v, high);
            low = S::max(S::sub(S::zero(), v), low);
            odd = strange(odd, v);
        });
        const bool finite = S::sum(odd) == 0;
        *most = finite ? S::most(high) : __builtin_inff();
        *most_negated = finite ? S::most(low) : __builtin_inff();
    }

    /// The arithmetic of CodeRounding, its numbers in every lane.
    struct Coder {
        explicit Coder(const CodeRounding& r)
            : divides(r.over != 1),
              times(S::set1(r.times)),
              over(S::set1(r.over)),
              scale(S::set1(r.scale)),
              before(S::set1(r.before)),
              after(S::set1(r.after)),
              zero(S::set1(r.zero)) {}
        V scaled(V x) const {
            const V v = S::mul(x, times);
            return divides ? S::div(v, over) : v;
        }
        V int8(V x) const {
            const V c = S::add(S::round(S::add(scaled(x), before)), after);
            return S::max(S::set1(-128.0f), S::min(S::set1(127.0f), c));
        }
        bool divides;
        V times, over, scale, before, after, zero;
    };

    static void round_int8(const CodeRounding& r, const float* x, int64_t n, float* out) {
        const Coder coder(r);
        by_16(n, [&](int64_t i, int count) {
            const V c = coder.int8(load_n<S>(x + i, count));
            store_n<S>(out + i, count, S::mul(S::sub(c, coder.zero), coder.scale));
        });
    }

    static void round_minifloat(const Minifloat& type, const CodeRounding& r, const float* x,
                                int64_t n, float* out) {
        const Coder coder(r);
        const V top = S::set1(type.top), bottom = S::set1(-type.top);
        const V least = S::set1(type.least), magic = S::set1(type.magic);
        by_16(n, [&](int64_t i, int count) {
            const V v = S::max(bottom, S::min(top, coder.scaled(load_n<S>(x + i, count))));
            const V unit = S::mul(S::max(S::power(v), least), magic);
            const V c = S::sub(S::add(v, unit), unit);
            store_n<S>(out + i, count, S::mul(c, coder.scale));
        });
    }

    static void code_int8(const CodeRounding& r, const float* x, int64_t n, int8_t* q,
                          int32_t* sum) {
        const Coder coder(r);
        V total = S::zero();
        by_16(n, [&](int64_t i, int count) {
            V c = coder.int8(load_n<S>(x + i, count));
            S::store_i8_part(q + i, count, c);
            if (count < 16) {
                float lanes[16];
                S::store(lanes, c);
                c = S::load_part(lanes, count);
            }
            total = S::add(total, c);
        });
        *sum = static_cast<int32_t>(S::sum(total));  // exact: 2^13 codes a lane
    }
};

/// `axpy` is given apart: one rounding needs a true fma, which S::fma need not be.
template <class S>
constexpr VectorOps make_vector_ops(Isa isa, void (*axpy)(float, const float*, int64_t, float*)) {
    using R = RowOps<S>;
    return {isa,       R::rms_norm,   R::silu_mul,        R::add,        axpy,
            R::scale,  R::rope_half,  R::softmax,         R::round_bf16, R::to_bf16,
            R::to_f16, R::to_int8,    R::from_bf16,       R::from_f16,   R::group_amax,
            R::range,  R::round_int8, R::round_minifloat, R::code_int8};
}

template <class S>
void fused_axpy(float a, const float* x, int64_t n, float* y) {
    const auto factor = S::set1(a);
    by_16(n, [&](int64_t i, int count) {
        store_n<S>(y + i, count, S::fma(factor, load_n<S>(x + i, count), load_n<S>(y + i, count)));
    });
}

}  // namespace
}  // namespace conclave::quant
