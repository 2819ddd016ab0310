// Grouped kernels whose input is int8: see op.h for the formulas. Internal linkage.
//
// D multiplies: Bytes (codes.h), Sum (of 32 columns), none(), dot(sum, half, four codes of x),
// total(sum) as floats. For whole rows also Whole, 16 numbers of int32: set(n), whole(floats),
// floats(w), add, sub, mul, high(w) (w >> 16), low(w) (w & 65535), widen(sum); and kWide, which
// says that a Sum is a Whole that any number of columns can be added to.
#pragma once
#include "quant/kernels/grouped/codes.h"
#include "quant/kernels/store_panel.h"

namespace conclave::quant::grouped {
namespace {

enum class Zeros {
    kOne,    ///< the same for all codes
    kOwn,    ///< that of the group
    kAdded,  ///< kOne, and the group's is added
};

/// Independent sums of a tile that keep the multipliers busy: a product is added up in 4 or 5
/// cycles, and one or two begin in each.
constexpr int kEnoughSums = 8;
/// Chains that a tile makes each sum in. Sums are of integers: their order is free.
template <int R, int P>
constexpr int kChains = R* P >= kEnoughSums       ? 1
                        : R* P * 2 >= kEnoughSums ? 2
                                                  : 4;

/// The next Count chunks of all; where `Ones`, `ones` sums their codes. Prefetches those of the
/// panels `ahead` bytes later. Pointers that advance leave every address a register and a constant,
/// and R + P of them fit the general registers.
template <class D, bool Ones, CodeType Code, int Count, class C, int R, int P>
[[gnu::always_inline]] inline void next_chunks(const C& codes, int64_t ahead,
                                               const std::byte* (&w)[P], const std::byte* (&x)[R],
                                               typename D::Sum (&sums)[R][P],
                                               typename D::Sum (&ones)[P]) {
    constexpr int kProducts = 2 * R * kHalf / kChunkBytes<Code>;  // for each 64 bytes
    constexpr int kOthers = D::kWide && Count > 1 ? kChains<R, P> - 1 : 0;
    typename D::Sum others[R][P][kOthers + 1];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
            for (int i = 0; i < kOthers; ++i) others[r][p][i] = D::none();
#pragma GCC unroll 4
    for (int c = 0; c < Count; ++c) {
        Chunk<typename D::Bytes> chunk[P];
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
            const std::byte* const from = w[p] + c * kChunkBytes<Code>;
            chunk[p] = codes.load(from);
            prefetch<kProducts, kChunkBytes<Code>>(from + ahead);
        }
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
            const int chain = (2 * c + h) % (kOthers + 1);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const int32_t four = load_int(x[r] + c * kRunGranule + h * 4);
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) {
                    auto& sum = chain < kOthers ? others[r][p][chain] : sums[r][p];
                    sum = D::dot(sum, chunk[p].half[h], four);
                }
            }
            if constexpr (Ones)
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) ones[p] = D::dot(ones[p], chunk[p].half[h], 0x01010101);
        }
    }
    if constexpr (kOthers > 0)
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
                for (int i = 0; i < kOthers; ++i) sums[r][p] = D::add(sums[r][p], others[r][p][i]);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) w[p] += Count * kChunkBytes<Code>;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) x[r] += Count * kRunGranule;
}

/// XType::kI8. Zeros: what is subtracted from codes.
template <class D, CodeType Code, Zeros Zero>
struct Int8 {
    using B = typename D::Bytes;
    using S = typename B::Simd;
    using V = typename S::V;
    using C = Codes<B, Code>;
    static constexpr bool kSteps = C::kSteps;
    static constexpr int kChunks = kBlockColumns / kRunGranule;
    /// Sums begin with what a zero that is the same for all comes to.
    static constexpr bool kStarts = D::kWide && Zero != Zeros::kOwn;

    /// For a tile of these rows: [block][row] the zero times minus the sum of the block's codes.
    static void prepare(const Work& work, int64_t row, int64_t rows, int32_t* starts) {
        if constexpr (!kStarts) return;
        const float zero = C::kSteps ? work.max_step : work.zero_point;
        for (int64_t r = 0; r < rows; ++r) {
            const auto* sums = static_cast<const std::byte*>(work.call.x[row + r]) + work.x_sums_at;
            int32_t* to = starts + r;
            for (int64_t b = 0; b < work.blocks; ++b, to += rows)
                *to = -static_cast<int32_t>(zero * load_float(sums + b * 4));
        }
    }

    template <int R, int P>
    static void tile(const Work& work, int64_t panel, int64_t row, const int32_t* starts,
                     int64_t ahead) {
        const std::byte* from = work.call.packed + panel * work.panel_bytes;
        const C codes(work);
        Factors<S, P> factors(work, panel, kSteps);
        const std::byte *w[P], *x[R];
        V acc[R][P];
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) w[p] = from + p * work.panel_bytes + work.codes_at;
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            x[r] = static_cast<const std::byte*>(work.call.x[row + r]);
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) acc[r][p] = S::zero();
        }
        int64_t scale_at = work.x_scales_at, sum_at = work.x_sums_at;  // from the next codes of x
        for (int64_t g = 0; g < work.run_count; ++g) {
            factors.next();
            for (int64_t left = work.runs[g].columns; left > 0; left -= kBlockColumns) {
                typename D::Sum sums[R][P], ones[P];
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                    for (int p = 0; p < P; ++p) sums[r][p] = start(starts, r);
                starts += R;
                int chunks = kChunks;
                if (left > kBlockColumns - kRunGranule) {
                    next_chunks<D, false, Code, kChunks>(codes, ahead, w, x, sums, ones);
                } else {
                    chunks = static_cast<int>((left + kRunGranule - 1) / kRunGranule);
                    for (int c = 0; c < chunks; ++c)
                        next_chunks<D, false, Code, 1>(codes, ahead, w, x, sums, ones);
                }
                scale_at -= chunks * kRunGranule;
                sum_at -= chunks * kRunGranule;
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r)
                    finish(factors, load_float(x[r] + scale_at), load_float(x[r] + sum_at), sums[r],
                           acc[r]);
                scale_at += 4;
                sum_at += 4;
            }
        }
        store_panels<S>(work.call, panel, row, acc);
    }

  private:
    [[gnu::always_inline]] static typename D::Sum start(const int32_t* starts, int row) {
        if constexpr (kStarts)
            return D::set(starts[row]);
        else
            return D::none();
    }
    /// The block of one row.
    template <int P>
    [[gnu::always_inline]] static void finish(const Factors<S, P>& factors, float x_scale,
                                              float x_sum, const typename D::Sum (&sums)[P],
                                              V (&acc)[P]) {
        const V scale = S::set1(x_scale), sum = S::set1(x_sum);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
            V u = D::total(sums[p]);
            if constexpr (!kStarts) u = S::fnma(factors.zero[p], sum, u);
            acc[p] = S::fma(u, S::mul(factors.scale[p], scale), acc[p]);
            if constexpr (Zero == Zeros::kAdded)
                acc[p] = S::fma(factors.added[p], S::mul(scale, sum), acc[p]);
        }
    }
};

/// XType::kI8Row. XZeros: some row of x has one.
template <class D, CodeType Code, bool XZeros>
struct Int8Row {
    using B = typename D::Bytes;
    using S = typename B::Simd;
    using V = typename S::V;
    using C = Codes<B, Code>;
    static constexpr bool kSteps = C::kSteps;
    using Whole = typename D::Whole;
    static constexpr int kChunks = kBlockColumns / kRunGranule;

    static void prepare(const Work&, int64_t, int64_t, int32_t*) {}

    /// Columns whose sum of products stays in int32: 255 * 128 times as many, and the same for the
    /// zeros.
    static constexpr int64_t kMost = 32768;

    /// The next columns of a run, and where they are.
    struct Place {
        const std::byte* w;
        int64_t at;
        int64_t ahead;  ///< see next_chunks()
    };

    /// `columns` more, at most kMost.
    template <int R, int P>
    [[gnu::always_inline]] static void add(const C& codes, int64_t panel_bytes,
                                           const std::byte* const (&x)[R], int64_t columns,
                                           Place& place, Whole (&sums)[R][P], Whole (&ones)[P]) {
        int64_t chunks = (columns + kRunGranule - 1) / kRunGranule;
        const std::byte *w[P], *from[R];
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) w[p] = place.w + p * panel_bytes;
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) from[r] = x[r] + place.at;
        place.w += chunks * kChunkBytes<Code>;
        place.at += chunks * kRunGranule;
        for (; chunks >= kChunks; chunks -= kChunks)
            step<R, P, kChunks>(codes, place.ahead, w, from, sums, ones);
        for (; chunks > 0; --chunks) step<R, P, 1>(codes, place.ahead, w, from, sums, ones);
    }

    /// Count chunks.
    template <int R, int P, int Count>
    [[gnu::always_inline]] static void step(const C& codes, int64_t ahead, const std::byte* (&w)[P],
                                            const std::byte* (&x)[R], Whole (&sums)[R][P],
                                            Whole (&ones)[P]) {
        if constexpr (D::kWide) {
            next_chunks<D, XZeros, Code, Count>(codes, ahead, w, x, sums, ones);
        } else {
            typename D::Sum block[R][P], block_ones[P];
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                block_ones[p] = D::none();
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) block[r][p] = D::none();
            }
            next_chunks<D, XZeros, Code, Count>(codes, ahead, w, x, block, block_ones);
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                if constexpr (XZeros) ones[p] = D::add(ones[p], D::widen(block_ones[p]));
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) sums[r][p] = D::add(sums[r][p], D::widen(block[r][p]));
            }
        }
    }

    template <int R, int P>
    [[gnu::always_inline]] static void clear(Whole (&sums)[R][P]) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) sums[r][p] = D::set(0);
    }

    /// d of a run beyond kMost columns: sums of which int32 holds the upper and the lower part.
    template <int R, int P>
    [[gnu::noinline]] static void long_run(const C& codes, int64_t panel_bytes,
                                           const std::byte* const (&x)[R], int64_t columns,
                                           const int32_t (&x_sum)[R], const Whole (&zero)[P],
                                           Place& place, V (&d)[R][P], Whole (&ones)[P]) {
        Whole sums[R][P], high[R][P], low[R][P];
        clear<R, P>(high);
        clear<R, P>(low);
        for (int64_t left = columns; left > 0; left -= kMost) {
            clear<R, P>(sums);
            add<R, P>(codes, panel_bytes, x, left < kMost ? left : kMost, place, sums, ones);
            for (int r = 0; r < R; ++r)
                for (int p = 0; p < P; ++p) {
                    high[r][p] = D::add(high[r][p], D::high(sums[r][p]));
                    low[r][p] = D::add(low[r][p], D::low(sums[r][p]));
                }
        }
        for (int r = 0; r < R; ++r)
            for (int p = 0; p < P; ++p) {
                const Whole upper = D::mul(zero[p], D::set(x_sum[r] >> 16));
                const Whole lower = D::sub(low[r][p], D::mul(zero[p], D::set(x_sum[r] & 65535)));
                const Whole carried = D::add(D::sub(high[r][p], upper), D::high(lower));
                d[r][p] = S::fma(D::floats(carried), S::set1(65536), D::floats(D::low(lower)));
            }
    }

    template <int R, int P>
    static void tile(const Work& work, int64_t panel, int64_t row, const int32_t*, int64_t ahead) {
        const std::byte* from = work.call.packed + panel * work.panel_bytes;
        const C codes(work);
        Factors<S, P> factors(work, panel, kSteps);
        const std::byte* x[R];
        V acc[R][P];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            x[r] = static_cast<const std::byte*>(work.call.x[row + r]);
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) acc[r][p] = S::zero();
        }
        Place place{from + work.codes_at, 0, ahead};
        for (int64_t g = 0; g < work.run_count; ++g) {
            const int64_t columns = work.runs[g].columns;
            factors.next();
            Whole zero[P], ones[P];
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                zero[p] = D::whole(factors.zero[p]);
                ones[p] = D::set(0);
            }
            int32_t x_sum[R];
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) x_sum[r] = load_int(x[r] + work.x_sums_at + g * 4);
            V d[R][P];
            if (columns <= kMost) {
                Whole sums[R][P];
                clear<R, P>(sums);
                add<R, P>(codes, work.panel_bytes, x, columns, place, sums, ones);
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                    for (int p = 0; p < P; ++p)
                        d[r][p] = D::floats(D::sub(sums[r][p], D::mul(zero[p], D::set(x_sum[r]))));
            } else {
                long_run<R, P>(codes, work.panel_bytes, x, columns, x_sum, zero, place, d, ones);
            }
            finish<R, P>(work, factors, x, static_cast<int32_t>(columns), zero, ones, d, acc);
        }
        store_panels<S>(work.call, panel, row, acc);
    }

    /// What a run's d comes to.
    template <int R, int P>
    [[gnu::always_inline]] static void finish(const Work& work, const Factors<S, P>& factors,
                                              const std::byte* const (&x)[R], int32_t columns,
                                              const Whole (&zero)[P], const Whole (&ones)[P],
                                              const V (&d)[R][P], V (&acc)[R][P]) {
        V t[P];
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p)
            if constexpr (XZeros)
                t[p] = D::floats(D::sub(ones[p], D::mul(zero[p], D::set(columns))));
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const V scale = S::set1(load_float(x[r] + work.x_scales_at));
            const V x_zero = S::set1(load_float(x[r] + work.x_scales_at + 4));
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                V u = d[r][p];
                if constexpr (XZeros) u = S::fnma(x_zero, t[p], u);
                acc[r][p] = S::fma(u, S::mul(factors.scale[p], scale), acc[r][p]);
            }
        }
    }
};

/// Whether a row of int8 input has a zero.
inline bool any_x_zero(const Work& work) {
    for (int64_t r = 0; r < work.call.rows; ++r) {
        const auto* row = static_cast<const std::byte*>(work.call.x[r]);
        if (load_float(row + work.x_scales_at + 4) != 0) return true;
    }
    return false;
}

}  // namespace
}  // namespace conclave::quant::grouped
