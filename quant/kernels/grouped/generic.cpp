#include "quant/kernels/grouped/generic.h"

#include "quant/simd/generic.h"

namespace conclave::quant::grouped {
namespace {

struct Bytes {
    using Simd = Generic;
    struct Half {
        uint8_t code[kHalf];
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
    template <int I>
    static Generic::V column(const Half& h) {
        float f[kRows];
        for (int r = 0; r < kRows; ++r) f[r] = h.code[4 * r + I];
        return Generic::load(f);
    }
};

struct Multiply {
    using Bytes = grouped::Bytes;
    struct Sum {
        int32_t of[kRows];
    };
    static Sum none() { return {}; }
    static Sum dot(Sum sum, const Bytes::Half& h, int32_t x) {
        int8_t four[4];
        std::memcpy(four, &x, sizeof four);
        for (int r = 0; r < kRows; ++r)
            for (int i = 0; i < 4; ++i) sum.of[r] += h.code[4 * r + i] * four[i];
        return sum;
    }
    static Generic::V total(const Sum& sum) {
        float f[kRows];
        for (int r = 0; r < kRows; ++r) f[r] = static_cast<float>(sum.of[r]);
        return Generic::load(f);
    }
};

using Tiles = Tile<4, 1, 4>;

}  // namespace

void grouped_u4_i8_generic_run(const Work& work) {
    run<Int8<Multiply, CodeType::kU4>, Tiles>(work);
}
void grouped_u8_i8_generic_run(const Work& work) {
    run<Int8<Multiply, CodeType::kU8>, Tiles>(work);
}
void grouped_u4_f32_generic_run(const Work& work) {
    run<Float<Widen<Bytes, CodeType::kU4>>, Tiles>(work);
}
void grouped_u8_f32_generic_run(const Work& work) {
    run<Float<Widen<Bytes, CodeType::kU8>>, Tiles>(work);
}

}  // namespace conclave::quant::grouped
