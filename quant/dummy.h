// Numbers for weights that are in no file: functions of a tensor's name and a place in it alone.
#pragma once
#include <cstdint>
#include <string_view>

#include "runtime/base/hash.h"

namespace conclave::quant {

/// splitmix64's finaliser: 64 well mixed bits of a counter.
constexpr uint64_t mixed(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

inline uint64_t tensor_seed(std::string_view tensor) { return Hasher().add(tensor).value(); }

}  // namespace conclave::quant
