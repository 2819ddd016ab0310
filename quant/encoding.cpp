#include "quant/encoding.h"

#include <cmath>

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
        case CodeType::kT4:
            return "t4";
        case CodeType::kE4M3:
            return "e4m3";
        case CodeType::kE4M3N:
            return "e4m3n";
        case CodeType::kU2:
            return "u2";
        case CodeType::kU3:
            return "u3";
        case CodeType::kU5:
            return "u5";
        case CodeType::kU6:
            return "u6";
    }
    return "unknown";
}

std::shared_ptr<const Codebook> make_codebook(std::string name,
                                              const std::array<float, 16>& levels) {
    auto book = std::make_shared<Codebook>();
    book->name = std::move(name);
    book->levels = levels;
    for (float step = 64; step >= 0x1p-10f && book->step == 0; step /= 2) {
        bool exact = true;
        for (size_t i = 0; i < levels.size() && exact; ++i) {
            const float steps = levels[i] / step;
            exact = std::fabs(steps) <= 127 && steps == std::nearbyint(steps);
            book->steps[i] = exact ? static_cast<int8_t>(steps) : int8_t{0};
        }
        if (exact) book->step = step;
    }
    if (book->step == 0) book->steps = {};
    return book;
}

std::shared_ptr<const Codebook> fp4_codebook() {
    static const auto book = make_codebook(
        "fp4", {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6});
    return book;
}

std::string Encoding::to_string() const {
    if (!is_scaled(code)) return code_name(code);
    std::string s = is_integer(code)        ? "int" + std::to_string(bits)
                    : code == CodeType::kT4 ? levels ? levels->name : "no codebook"
                    : bits == 6             ? "fp6"
                                            : "fp8";
    if (group > 0 && group_rows != 1)
        s += " " + std::to_string(group_rows) + "x" + std::to_string(group);
    else if (group > 0)
        s += " g" + std::to_string(group);
    else
        s += group_rows == 0 ? " tensor" : " channel";
    if (scale == FactorType::kE4M3) s += " e4m3";
    if (scale == FactorType::kE8M0) s += " e8m0";
    if (super > 0) s += " of " + std::to_string(group * super);
    if (zero == FactorType::kU8) s += super > 0 ? " minima" : " asym";
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
        case XType::kI8Row:
            return "int8 rows";
    }
    return "unknown";
}

ActivationRule choose_activation_rule(const Encoding& encoding, const ActivationRule* own,
                                      Activations policy, bool deterministic) {
    if (policy == Activations::kF32) return kF32Input;
    if (policy == Activations::kBF16) return kBF16Input;
    const bool integers =
        is_integer(encoding.code) || (encoding.levels && encoding.levels->step > 0);
    if (own && (policy == Activations::kAuto || !integers)) {
        ActivationRule rule = *own;
        if (deterministic) rule.batch = false;
        return rule;
    }
    if (integers) return kInt8Input;
    return encoding.code == CodeType::kBF16 ? kBF16Input : kF32Input;
}

}  // namespace conclave::quant
