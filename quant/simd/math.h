// exp and row loops over a vector type S of this folder. Internal linkage.
#pragma once
#include <cstdint>

namespace conclave::quant {
namespace {

/// e^x within 2 ulp, subnormal results included. 0 for -inf, inf above 88.7, NaN for NaN.
template <class S>
typename S::V exp(typename S::V x) {
    using V = typename S::V;
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    x = S::min(S::set1(89.0f), x);         // beyond these the result is inf, resp. 0
    x = S::max(S::set1(-104.0f), x);
    const V m = S::fma(x, S::set1(1.44269504f), S::set1(kRound));
    const V n = S::sub(m, S::set1(kRound));
    // r = x - n ln 2, |r| <= 0.347; the first part of ln 2 has 10 bits, so that n times it is
    // exact.
    V r = S::fma(n, S::set1(-0.693359375f), x);
    r = S::fma(n, S::set1(2.12194440e-4f), r);
    // Taylor to r^7: the rest is below 6e-9 of the result.
    V p = S::set1(1.0f / 5040);
    p = S::fma(p, r, S::set1(1.0f / 720));
    p = S::fma(p, r, S::set1(1.0f / 120));
    p = S::fma(p, r, S::set1(1.0f / 24));
    p = S::fma(p, r, S::set1(1.0f / 6));
    p = S::fma(p, r, S::set1(0.5f));
    p = S::fma(p, S::mul(r, r), r);
    return S::scale2(S::add(p, S::set1(1.0f)), m);
}

template <class S>
float exp1(float x) {
    float lanes[16];
    S::store(lanes, exp<S>(S::set1(x)));
    return lanes[0];
}

template <class S>
float max_lane(typename S::V v) {
    float lanes[16];
    S::store(lanes, v);
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; ++i)
            lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    return lanes[0];
}

/// The first n of 16 floats, `other` in the remaining lanes.
template <class S>
typename S::V load_or(const float* p, int n, float other) {
    float lanes[16];
    S::store(lanes, S::set1(other));
    S::store_part(lanes, n, S::load_part(p, n));
    return S::load(lanes);
}

/// body(i, 16) for whole vectors, then body(i, rest) for what is left.
template <class Body>
void by_16(int64_t n, Body body) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) body(i, 16);
    if (i < n) body(i, static_cast<int>(n - i));
}

template <class S>
typename S::V load_n(const float* p, int n) {
    return n == 16 ? S::load(p) : S::load_part(p, n);
}
template <class S>
void store_n(float* p, int n, typename S::V v) {
    if (n == 16)
        S::store(p, v);
    else
        S::store_part(p, n, v);
}

}  // namespace
}  // namespace conclave::quant
