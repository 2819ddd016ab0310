#include "quant/kernels/grouped/x86_avx512_bytes.h"

#include "quant/kernels/grouped/generic.h"

namespace conclave::quant::grouped {
namespace {

struct Multiply {
    using Bytes = grouped::Bytes;
    static constexpr bool kWide = true;
    using Sum = __m512i;
    using Whole = __m512i;
    static Sum none() { return _mm512_setzero_si512(); }
    static Sum dot(Sum sum, __m512i h, int32_t x) {
        return _mm512_dpbusd_epi32(sum, h, _mm512_set1_epi32(x));
    }
    static __m512 total(Sum sum) { return floats(sum); }

    static Whole set(int32_t n) { return _mm512_set1_epi32(n); }
    static Whole whole(__m512 v) { return _mm512_cvtps_epi32(v); }
    static __m512 floats(Whole w) { return _mm512_cvtepi32_ps(w); }
    static Whole add(Whole a, Whole b) { return _mm512_add_epi32(a, b); }
    static Whole sub(Whole a, Whole b) { return _mm512_sub_epi32(a, b); }
    static Whole mul(Whole a, Whole b) { return _mm512_mullo_epi32(a, b); }
    static Whole high(Whole a) { return _mm512_srai_epi32(a, 16); }
    static Whole low(Whole a) { return _mm512_and_si512(a, _mm512_set1_epi32(65535)); }
};

// 32 registers: sums and results of 6 rows x 2 panels, and the operands. (Two panels, as on Intel a
// broadcast from memory takes as long as two products.)
using Tiles = Tile<6, 2, 6>;
// Sums alone stay in registers over a whole run.
using RowTiles = Tile<8, 2, 8>;

}  // namespace

void grouped_u4_i8row_avx512vnni_run(const Work& work) {
    run_int8_rows<Multiply, CodeType::kU4, RowTiles>(work);
}
void grouped_u8_i8row_avx512vnni_run(const Work& work) {
    run_int8_rows<Multiply, CodeType::kU8, RowTiles>(work);
}
void grouped_u4_i8_avx512vnni_run(const Work& work) {
    run_int8<Multiply, CodeType::kU4, Tiles>(work);
}
void grouped_u8_i8_avx512vnni_run(const Work& work) {
    run_int8<Multiply, CodeType::kU8, Tiles>(work);
}
void grouped_u2_i8_avx512vnni_run(const Work& work) {
    run_int8<Multiply, CodeType::kU2, Tiles>(work);
}
void grouped_u3_i8_avx512vnni_run(const Work& work) {
    run_int8<Multiply, CodeType::kU3, Tiles>(work);
}
void grouped_u5_i8_avx512vnni_run(const Work& work) {
    run_int8<Multiply, CodeType::kU5, Tiles>(work);
}
void grouped_u6_i8_avx512vnni_run(const Work& work) {
    run_int8<Multiply, CodeType::kU6, Tiles>(work);
}
void grouped_t4_i8_avx512vnni_run(const Work& work) {
    run<Int8<Multiply, CodeType::kT4, Zeros::kOne>, Tiles>(work);
}

}  // namespace conclave::quant::grouped
