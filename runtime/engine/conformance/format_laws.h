// What formats promise of configs and tensors that come from strangers.
#pragma once
#include "runtime/engine/conformance/search.h"
#include "runtime/engine/conformance/subject.h"

namespace conclave::engine::conformance {

/// format.config: `subjects` give configs to change, and need not be there.
Outcome search_config(const quant::QuantizationFormat& format, const Subjects& subjects,
                      const Trial& trial);

/// format.describe. The subjects need not be described.
Outcome search_describe(const quant::QuantizationFormat& format, const Subjects& subjects,
                        const Trial& trial);

}  // namespace conclave::engine::conformance
