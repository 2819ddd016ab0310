// What kernels promise.
#pragma once
#include <vector>

#include "runtime/engine/conformance/kernel_case.h"
#include "runtime/engine/conformance/search.h"

namespace conclave::engine::conformance {

using KernelCheck = Verdict (*)(const quant::Kernel& kernel, const KernelCase& c);
struct KernelLaw {
    const char* name;
    KernelCheck check;
    bool ranges;  ///< a range of columns is part of the case
    bool blocks;  ///< those after it say nothing where it is broken
};
/// In the order in which they build on each other.
const std::vector<KernelLaw>& kernel_laws();

/// The CPU must have kernel.isa.
Outcome search_kernel(const KernelLaw& law, const quant::Kernel& kernel, const Trial& trial);

}  // namespace conclave::engine::conformance
