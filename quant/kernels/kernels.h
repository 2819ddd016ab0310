// Declares every kernel of kernels.inc: const Kernel panel_bf16_avx512; ...
#pragma once
#include "quant/kernel.h"

namespace conclave::quant {

#define CONCLAVE_KERNEL(name, isa, code, x) extern const Kernel name;
#include "quant/kernels/kernels.inc"
#undef CONCLAVE_KERNEL

}  // namespace conclave::quant
