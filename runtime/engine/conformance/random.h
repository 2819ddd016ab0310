// Random numbers that are the same with every standard library.
#pragma once
#include <cmath>
#include <cstdint>

#include "quant/dummy.h"

namespace conclave::engine::conformance {

class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}

    uint64_t bits() {  // splitmix64
        const uint64_t v = quant::mixed(state_);
        state_ += 0x9e3779b97f4a7c15u;
        return v;
    }
    /// lo .. hi, both inclusive.
    int64_t in(int64_t lo, int64_t hi) {
        return lo + static_cast<int64_t>(bits() % (static_cast<uint64_t>(hi - lo) + 1));
    }
    /// Of about unit variance, never 0.
    float number() {
        const float v = std::ldexp(static_cast<float>(in(1, 1 << 22)), -21);
        return in(0, 1) == 0 ? v : -v;
    }

  private:
    uint64_t state_;
};

}  // namespace conclave::engine::conformance
