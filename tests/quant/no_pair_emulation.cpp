#include "tests/quant/pair_emulation.h"

namespace conclave::quant::test {

void (*const pair_emulation_run)(const GemmCall&) = nullptr;

}  // namespace conclave::quant::test
