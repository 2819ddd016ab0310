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
        case CodeType::kU4:
            return "u4";
        case CodeType::kU8:
            return "u8";
    }
    return "unknown";
}

std::string Encoding::to_string() const {
    if (!is_integer(code)) return code_name(code);
    std::string s = "int" + std::to_string(bits);
    s += group > 0 ? " g" + std::to_string(group) : " channel";
    if (zero == FactorType::kU8) s += " asym";
    if (zero != FactorType::kNone && zero != FactorType::kU8) s += " float zeros";
    if (permuted) s += " act-order";
    return s;
}

const char* x_type_name(XType t) {
    switch (t) {
        case XType::kF32:
            return "f32";
        case XType::kBF16:
            return "bf16";
        case XType::kI8:
            return "int8";
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
        case Activations::kInt8:
            return "int8";
    }
    return "unknown";
}

const char* activation_rule_name(ActivationRule r) {
    switch (r) {
        case ActivationRule::kNone:
            return "f32";
        case ActivationRule::kBF16:
            return "bf16";
        case ActivationRule::kInt8:
            return "int8";
    }
    return "unknown";
}

ActivationRule activation_rule(const Encoding& encoding, Activations policy) {
    if (policy == Activations::kF32) return ActivationRule::kNone;
    if (policy == Activations::kBF16) return ActivationRule::kBF16;
    if (is_integer(encoding.code)) return ActivationRule::kInt8;
    return encoding.code == CodeType::kBF16 ? ActivationRule::kBF16 : ActivationRule::kNone;
}

}  // namespace conclave::quant
