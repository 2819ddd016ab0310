#include "quant/kernels/grouped/generic.h"

#include "quant/simd/generic.h"

namespace conclave::quant::grouped {
namespace {

struct Bytes {
    using Simd = Generic;
    struct Half {
        uint8_t code[kHalf];
    };
    struct Table {
        uint8_t of[16];
    };
    static Half load(const std::byte* p) {
        Half h;
        std::memcpy(&h, p, sizeof h);
        return h;
    }
    static Half low(Half h) {
        for (uint8_t& c : h.code) c &= 15;
        return h;
    }
    static Half high(Half h) {
        for (uint8_t& c : h.code) c = static_cast<uint8_t>(c >> 4);
        return h;
    }
    static Half either(Half a, const Half& b) {
        for (int i = 0; i < kHalf; ++i) a.code[i] |= b.code[i];
        return a;
    }
    template <int At>
    [[gnu::noinline]] static void twos(const std::byte* p, Half (&h)[2]) {
        for (int b = 0; b < 2 * kHalf; ++b)
            h[b / kHalf].code[b % kHalf] = field(p[b % 32], 2 * (b / 32), 3, At);
    }
    template <int At>
    [[gnu::noinline]] static void ones(const std::byte* p, Half (&h)[2]) {
        for (int b = 0; b < 2 * kHalf; ++b)
            h[b / kHalf].code[b % kHalf] = field(p[b % 16], b / 16, 1, At);
    }
    static uint8_t field(std::byte byte, int shift, int mask, int at) {
        return static_cast<uint8_t>((static_cast<int>(byte) >> shift & mask) << at);
    }
    static Table table(const uint8_t* bytes) {
        Table t;
        std::memcpy(&t, bytes, sizeof t);
        return t;
    }
    [[gnu::noinline]] static Half look(const Table& table, Half h) {
        for (uint8_t& c : h.code) c = table.of[c];
        return h;
    }
    template <int I>
    [[gnu::noinline]] static Generic::V column(const Half& h) {
        float f[kRows];
        for (int r = 0; r < kRows; ++r) f[r] = h.code[4 * r + I];
        return Generic::load(f);
    }
};

struct Multiply {
    using Bytes = grouped::Bytes;
    static constexpr bool kWide = true;
    struct Whole {
        int32_t of[kRows];
    };
    using Sum = Whole;
    static Sum none() { return {}; }
    [[gnu::noinline]] static Sum dot(const Sum& before, const Bytes::Half& h, int32_t x) {
        Sum sum = before;
        int8_t four[4];
        std::memcpy(four, &x, sizeof four);
        for (int r = 0; r < kRows; ++r)
            for (int i = 0; i < 4; ++i) sum.of[r] += h.code[4 * r + i] * four[i];
        return sum;
    }
    static Generic::V total(const Sum& sum) { return floats(sum); }

    static Whole set(int32_t n) {
        Whole w;
        for (int32_t& v : w.of) v = n;
        return w;
    }
    static Whole whole(Generic::V v) {
        float f[kRows];
        Generic::store(f, v);
        Whole w;
        for (int r = 0; r < kRows; ++r) w.of[r] = static_cast<int32_t>(f[r]);
        return w;
    }
    static Generic::V floats(const Whole& w) {
        float f[kRows];
        for (int r = 0; r < kRows; ++r) f[r] = static_cast<float>(w.of[r]);
        return Generic::load(f);
    }
    static Whole add(Whole a, const Whole& b) {
        for (int r = 0; r < kRows; ++r) a.of[r] += b.of[r];
        return a;
    }
    static Whole sub(Whole a, const Whole& b) {
        for (int r = 0; r < kRows; ++r) a.of[r] -= b.of[r];
        return a;
    }
    static Whole mul(Whole a, const Whole& b) {
        for (int r = 0; r < kRows; ++r) a.of[r] *= b.of[r];
        return a;
    }
    static Whole high(Whole a) {
        for (int32_t& v : a.of) v >>= 16;
        return a;
    }
    static Whole low(Whole a) {
        for (int32_t& v : a.of) v &= 65535;
        return a;
    }
};

/// Codes, without zeros, that stand for what a table says.
template <CodeType Code>
struct Look {
    using Simd = Generic;
    using Unit = Chunk<Bytes>;
    static constexpr CodeType kCode = Code;
    static constexpr bool kSteps = false;
    const float* values;
    explicit Look(const Work& work) : values(work.values) {}
    static Unit load(const std::byte* p) { return load_chunk<Bytes, code_bits(Code)>(p); }
    template <int C>
    [[gnu::noinline]] Generic::V column(const Unit& unit, const Generic::V&) const {
        float f[kRows];
        for (int r = 0; r < kRows; ++r) f[r] = values[unit.half[C / 4].code[4 * r + C % 4]];
        return Generic::load(f);
    }
};

// Calls, not one long function of all that is unrolled, which takes minutes to compile.
using Tiles = Tile<2, 1, 2>;

}  // namespace

void grouped_u4_i8row_generic_run(const Work& work) {
    run_int8_rows<Multiply, CodeType::kU4, Tiles>(work);
}
void grouped_u8_i8row_generic_run(const Work& work) {
    run_int8_rows<Multiply, CodeType::kU8, Tiles>(work);
}
void grouped_u4_i8_generic_run(const Work& work) { run_int8<Multiply, CodeType::kU4, Tiles>(work); }
void grouped_u8_i8_generic_run(const Work& work) { run_int8<Multiply, CodeType::kU8, Tiles>(work); }
void grouped_u2_i8_generic_run(const Work& work) { run_int8<Multiply, CodeType::kU2, Tiles>(work); }
void grouped_u3_i8_generic_run(const Work& work) { run_int8<Multiply, CodeType::kU3, Tiles>(work); }
void grouped_u5_i8_generic_run(const Work& work) { run_int8<Multiply, CodeType::kU5, Tiles>(work); }
void grouped_u6_i8_generic_run(const Work& work) { run_int8<Multiply, CodeType::kU6, Tiles>(work); }
void grouped_t4_i8_generic_run(const Work& work) {
    run<Int8<Multiply, CodeType::kT4, Zeros::kOne>, Tiles>(work);
}
void grouped_u4_f32_generic_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU4>, Tiles>(work);
}
void grouped_u8_f32_generic_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU8>, Tiles>(work);
}
void grouped_u2_f32_generic_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU2>, Tiles>(work);
}
void grouped_u3_f32_generic_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU3>, Tiles>(work);
}
void grouped_u5_f32_generic_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU5>, Tiles>(work);
}
void grouped_u6_f32_generic_run(const Work& work) {
    run_float<Widen<Bytes, CodeType::kU6>, Tiles>(work);
}
void grouped_t4_f32_generic_run(const Work& work) { run<Float<Look<CodeType::kT4>>, Tiles>(work); }
void grouped_e4m3_f32_generic_run(const Work& work) {
    run<Float<Look<CodeType::kE4M3>>, Tiles>(work);
}
void grouped_e4m3n_f32_generic_run(const Work& work) {
    run<Float<Look<CodeType::kE4M3N>>, Tiles>(work);
}

}  // namespace conclave::quant::grouped
