// An E4M3 code as a bf16 number, whose bytes two tables of 16 give: no arithmetic meets a
// subnormal, so that a program that treats those as zero gets the same.
#pragma once
#include <cstdint>

namespace conclave::quant::grouped {
namespace {

/// By the upper four bits of a code without the sign, eee: the upper byte of a normal number,
/// exponent + 120. (Its lower byte is the code's lower four bits, shifted up.)
constexpr uint8_t kNormalHigh[16] = {60, 61, 62, 63, 64, 65, 66, 67,
                                     60, 61, 62, 63, 64, 65, 66, 67};
/// By the lower four bits of a subnormal, m: m * 2^-9.
constexpr uint8_t kSubnormalHigh[16] = {0, 59, 59, 59, 60, 60, 60, 60};
constexpr uint8_t kSubnormalLow[16] = {0, 0, 0x80, 0xc0, 0, 0x20, 0x40, 0x60};

}  // namespace
}  // namespace conclave::quant::grouped
