#include "quant/encoding.h"

namespace conclave::quant {

const char* code_name(CodeType t) {
    switch (t) {
        case CodeType::kF32:
            return "f32";
        case CodeType::kF16:
            return "f16";
        case CodeType::kBF16:
            return "bf16";
    }
    return "unknown";
}

const char* activations_name(Activations a) {
    switch (a) {
        case Activations::kAuto:
            return "auto";
        case Activations::kF32:
            return "f32";
        case Activations::kBF16:
            return "bf16";
    }
    return "unknown";
}

const char* activation_rule_name(ActivationRule r) {
    switch (r) {
        case ActivationRule::kNone:
            return "f32";
        case ActivationRule::kBF16:
            return "bf16";
    }
    return "unknown";
}

ActivationRule activation_rule(const Encoding& encoding, Activations policy) {
    switch (policy) {
        case Activations::kF32:
            return ActivationRule::kNone;
        case Activations::kBF16:
            return ActivationRule::kBF16;
        case Activations::kAuto:
            break;
    }
    return encoding.code == CodeType::kBF16 ? ActivationRule::kBF16 : ActivationRule::kNone;
}

}  // namespace conclave::quant
