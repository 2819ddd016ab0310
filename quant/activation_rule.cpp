#include "quant/activation_rule.h"

namespace conclave::quant {

const char* activations_name(Activations a) {
    switch (a) {
        case Activations::kAuto:
            return "auto";
        case Activations::kF32:
            return "f32";
        case Activations::kBF16:
            return "bf16";
        case Activations::kInt8:
            return "int8";
    }
    return "unknown";
}

std::string ActivationRule::to_string() const {
    static constexpr const char* kNames[] = {"f32", "bf16", "int8", "fp8", "fp4"};
    const std::string name = kNames[static_cast<size_t>(code)];
    if (scale_rule == ScaleRule::kNone || scale_rule == ScaleRule::kBlocks) return name;
    if (scale_rule == ScaleRule::kStatic) return name + " static";
    const std::string span = group > 0 ? " per " + std::to_string(group) : " per token";
    return name + span + (scale_rule == ScaleRule::kMinMax ? " asym" : "") +
           (outlier > 0 ? ", outliers f32" : "");
}

}  // namespace conclave::quant
