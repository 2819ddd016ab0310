#pragma once
#include "quant/kernel.h"

namespace conclave::quant::test {

/// The AVX512-BF16 kernel with its instruction replaced by plain AVX-512; null on other CPUs.
extern void (*const pair_emulation_run)(const GemmCall&);

}  // namespace conclave::quant::test
