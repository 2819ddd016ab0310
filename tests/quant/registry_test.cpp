#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "quant/kernel.h"

namespace conclave::quant {
namespace {

LinearDescriptor linear() { return {}; }
PartDescriptor part(CodeType code, ActivationRule rule) {
    return {"q_proj", 32, {64, {code}, nullptr}, rule};
}
CpuFeatures cpu(std::initializer_list<Isa> isas) {
    CpuFeatures f;
    for (Isa isa : isas) f.mask |= 1u << static_cast<int>(isa);
    return f;
}
void nothing(const GemmCall&) {}

constexpr ActivationRule kDynamic{
    .code = ActivationCode::kInt8, .scale_rule = ScaleRule::kAbsMax, .top = 127};
/// Of every kind.
constexpr ActivationRule kRules[] = {
    kF32Input,
    kBF16Input,
    kInt8Input,
    kDynamic,
    {.code = ActivationCode::kInt8, .scale_rule = ScaleRule::kMinMax},
    {.code = ActivationCode::kInt8, .scale_rule = ScaleRule::kStatic, .scale = 0.1f, .zero = 3},
    {.code = ActivationCode::kInt8, .scale_rule = ScaleRule::kAbsMax, .group = 32, .top = 127},
    {.code = ActivationCode::kE4M3, .scale_rule = ScaleRule::kStatic, .scale = 0.1f},
    {.code = ActivationCode::kE4M3, .scale_rule = ScaleRule::kAbsMax, .group = 128, .top = 448},
    {.code = ActivationCode::kE2M1, .scale_rule = ScaleRule::kE4M3Over, .group = 16, .scale = 9},
    {.code = ActivationCode::kE2M1, .scale_rule = ScaleRule::kEvenPow2, .group = 32, .top = 2},
};
bool one_scale(const ActivationRule& rule) {
    return rule.code == ActivationCode::kInt8 && rule.scale_rule != ScaleRule::kBlocks &&
           rule.group == 0;
}

TEST(Rule, AutoFollowsTheCodesAndAnExplicitPolicyWins) {
    EXPECT_EQ(choose_activation_rule({CodeType::kBF16}, nullptr, Activations::kAuto), kBF16Input);
    EXPECT_EQ(choose_activation_rule({CodeType::kF16}, nullptr, Activations::kAuto), kF32Input);
    EXPECT_EQ(choose_activation_rule({CodeType::kF32}, nullptr, Activations::kAuto), kF32Input);
    EXPECT_EQ(choose_activation_rule({CodeType::kBF16}, nullptr, Activations::kF32), kF32Input);
    EXPECT_EQ(choose_activation_rule({CodeType::kF32}, nullptr, Activations::kBF16), kBF16Input);
}

TEST(Registry, ServesEveryCodeAndRuleOnEveryCpu) {
    const KernelRegistry registry = KernelRegistry::built_in();
    for (const CpuFeatures& features :
         {cpu({}), cpu({Isa::kAvx2}), cpu({Isa::kAvx2, Isa::kAvx512}),
          cpu({Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni, Isa::kAvx512Bf16})})
        for (CodeType code : {CodeType::kF32, CodeType::kF16, CodeType::kBF16, CodeType::kU4,
                              CodeType::kU8, CodeType::kT4, CodeType::kE4M3, CodeType::kE4M3N})
            for (const ActivationRule& rule : kRules)
                for (bool deterministic : {false, true}) {
                    const bool integer = is_integer(code) || code == CodeType::kT4;
                    if (rule == kInt8Input && !integer) continue;
                    LinearDescriptor d = linear();
                    d.deterministic = deterministic;
                    PartDescriptor p = part(code, rule);
                    if (code == CodeType::kT4) p.layout.encoding.levels = fp4_codebook();
                    const KernelChoice choice = registry.select(d, p, features);
                    ASSERT_NE(choice.kernel, nullptr) << code_name(code) << " " << rule.to_string();
                    EXPECT_EQ(choice.kernel->code, code);
                    EXPECT_EQ(choice.kernel->x == XType::kI8, rule == kInt8Input);
                    const bool whole = is_integer(code) && one_scale(rule);
                    EXPECT_EQ(choice.kernel->x == XType::kI8Row, whole);
                    EXPECT_TRUE(features.has(choice.kernel->isa));
                    EXPECT_EQ(choice.refused.size() + 1, registry.kernels().size());
                    for (const KernelRefusal& refusal : choice.refused)
                        EXPECT_FALSE(refusal.reasons.empty()) << refusal.kernel->name;
                }
}

TEST(Registry, WhatHasNoIntegersIsMultipliedInFloats) {
    const KernelRegistry registry = KernelRegistry::built_in();
    const auto all = cpu({Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni});
    PartDescriptor p = part(CodeType::kU8, kDynamic);
    p.layout.encoding.zero = FactorType::kF16;
    EXPECT_EQ(registry.select(linear(), p, all).kernel->x, XType::kF32);
    p = part(CodeType::kT4, kInt8Input);
    p.layout.encoding.levels = make_codebook("odd", {0, 0.3f, 1});
    EXPECT_EQ(registry.select(linear(), p, all).kernel, nullptr);
    p.rule = kF32Input;
    EXPECT_EQ(registry.select(linear(), p, all).kernel->x, XType::kF32);
}

#if defined(__x86_64__)
TEST(Registry, PrefersTheWidestInstructionSet) {
    const KernelRegistry registry = KernelRegistry::built_in();
    const auto name = [&](CpuFeatures features, ActivationRule rule,
                          CodeType code = CodeType::kBF16) {
        return std::string(registry.select(linear(), part(code, rule), features).kernel->name);
    };
    const auto all = cpu({Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16});
    EXPECT_EQ(name(all, kBF16Input), "panel_bf16_bf16_avx512bf16");
    EXPECT_EQ(name(all, kF32Input), "panel_bf16_avx512");
    EXPECT_EQ(name(cpu({Isa::kAvx2, Isa::kAvx512}), kBF16Input), "panel_bf16_avx512");
    EXPECT_EQ(name(cpu({Isa::kAvx2}), kF32Input), "panel_bf16_avx2");
    EXPECT_EQ(name(cpu({}), kBF16Input), "panel_bf16_generic");
    const auto vnni = cpu({Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni});
    const auto int8 = kInt8Input;
    EXPECT_EQ(name(vnni, int8, CodeType::kU4), "grouped_u4_i8_avx512vnni");
    EXPECT_EQ(name(vnni, kBF16Input, CodeType::kU4), "grouped_u4_f32_avx512");
    EXPECT_EQ(name(cpu({Isa::kAvx2, Isa::kAvx512}), int8, CodeType::kU8), "grouped_u8_i8_avx2");
    EXPECT_EQ(name(cpu({}), int8, CodeType::kU8), "grouped_u8_i8_generic");
    EXPECT_EQ(name(vnni, kDynamic, CodeType::kU8), "grouped_u8_i8row_avx512vnni");
    EXPECT_EQ(name(cpu({Isa::kAvx2, Isa::kAvx512}), kDynamic, CodeType::kU8),
              "grouped_u8_i8row_avx2");
    EXPECT_EQ(name(vnni, kDynamic, CodeType::kE4M3), "grouped_e4m3_f32_avx512");
    EXPECT_EQ(name(vnni, int8, CodeType::kT4), "grouped_t4_i8_avx512vnni");
}
#endif

TEST(Registry, NamesAllReasonsAtOnce) {
    Kernel odd{};
    odd.name = "odd";
    odd.isa = Isa::kAvx512Bf16;
    odd.code = CodeType::kF16;
    odd.x = XType::kBF16;
    odd.run = nothing;
    LinearDescriptor d = linear();
    d.deterministic = true;
    const auto reasons = can_implement(odd, d, part(CodeType::kF32, kF32Input), cpu({Isa::kAvx2}));
    ASSERT_EQ(reasons.size(), 4u);
    EXPECT_EQ(reasons[0], "needs avx512bf16, the CPU has avx2");
    EXPECT_EQ(reasons[1], "computes f16 codes, not f32");
    EXPECT_EQ(reasons[2], "reads bf16 input, the activation rule is f32");

    KernelRegistry registry = KernelRegistry::built_in();
    EXPECT_EQ(registry.kernels().size(), [&] {
        std::set<std::string> names;
        for (const Kernel* k : registry.kernels()) names.insert(k->name);
        return names.size();
    }());
    odd.isa = Isa::kGeneric;
    odd.code = CodeType::kF32;
    odd.x = XType::kF32;
    registry.add_front(&odd);
    d.deterministic = false;
    EXPECT_EQ(registry.select(d, part(CodeType::kF32, kF32Input), cpu({})).kernel, &odd);
    d.deterministic = true;
    const KernelChoice choice = registry.select(d, part(CodeType::kF32, kF32Input), cpu({}));
    EXPECT_NE(choice.kernel, &odd);
    EXPECT_EQ(choice.refused.front().kernel, &odd);
    EXPECT_EQ(KernelRegistry().select(d, part(CodeType::kF32, kF32Input), cpu({})).kernel, nullptr);
}

}  // namespace
}  // namespace conclave::quant
