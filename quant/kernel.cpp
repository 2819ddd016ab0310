#include "quant/kernel.h"

#include "quant/kernels/kernels.h"

namespace conclave::quant {

std::vector<std::string> can_implement(const Kernel& kernel, const LinearDescriptor& linear,
                                       const PartDescriptor& part, CpuFeatures cpu) {
    std::vector<std::string> reasons;
    if (!cpu.has(kernel.isa))
        reasons.push_back(std::string("needs ") + isa_name(kernel.isa) + ", the CPU has " +
                          (cpu.mask == 1 ? isa_name(Isa::kGeneric) : cpu.to_string()));
    if (part.layout.encoding.code != kernel.code)
        reasons.push_back(std::string("computes ") + code_name(kernel.code) + " codes, not " +
                          code_name(part.layout.encoding.code));
    // Rounded and held as f32, an input is still exact: f32 kernels serve every rule but the
    // engine's own int8.
    const ActivationRule& rule = part.rule;
    const bool fits = kernel.x == XType::kI8      ? rule == kInt8Input
                      : kernel.x == XType::kI8Row ? rule.code == ActivationCode::kInt8 &&
                                                        rule.scale_rule != ScaleRule::kBlocks &&
                                                        rule.group == 0 && !(rule.outlier > 0)
                      : kernel.x == XType::kBF16 ? rule == kBF16Input
                                                 : rule != kInt8Input;
    if (!fits)
        reasons.push_back(std::string("reads ") + x_type_name(kernel.x) +
                          " input, the activation rule is " + rule.to_string());
    const Encoding& encoding = part.layout.encoding;
    const bool float_zeros = encoding.zero != FactorType::kNone &&
                             (encoding.zero != FactorType::kU8 || encoding.zero_added);
    if (kernel.x == XType::kI8Row && float_zeros)
        reasons.push_back("its products are integers, the weights have float zeros");
    if (encoding.super > 0 && !kernel.super)
        reasons.push_back("knows no scales under super-scales");
    const bool int8 = kernel.x == XType::kI8 || kernel.x == XType::kI8Row;
    if (int8 && encoding.levels && encoding.levels->step == 0)
        reasons.push_back("its products are integers, the codebook " + encoding.levels->name +
                          " has no integer form");
    if (reasons.empty() && kernel.refusal)
        if (const char* why = kernel.refusal(part)) reasons.push_back(why);
    if (linear.deterministic && !kernel.consistent)
        reasons.push_back("its order of summation is not fixed (deterministic mode)");
    return reasons;
}

KernelRegistry KernelRegistry::built_in() {
    KernelRegistry registry;
#define CONCLAVE_KERNEL(name, isa, code, x) registry.add(&name);
#include "quant/kernels/kernels.inc"
#undef CONCLAVE_KERNEL
    return registry;
}

const Kernel* KernelRegistry::find(std::string_view name) const {
    for (const Kernel* k : kernels_)
        if (k->name == name) return k;
    return nullptr;
}

KernelChoice KernelRegistry::select(const LinearDescriptor& linear, const PartDescriptor& part,
                                    CpuFeatures cpu) const {
    KernelChoice choice;
    for (const Kernel* kernel : kernels_) {
        auto reasons = can_implement(*kernel, linear, part, cpu);
        if (reasons.empty() && !choice.kernel) {
            choice.kernel = kernel;
            continue;
        }
        if (reasons.empty())
            reasons.push_back(std::string("could serve, ") + choice.kernel->name + " comes first");
        choice.refused.push_back({kernel, std::move(reasons)});
    }
    return choice;
}

}  // namespace conclave::quant
