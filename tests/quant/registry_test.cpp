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
        for (CodeType code :
             {CodeType::kF32, CodeType::kF16, CodeType::kBF16, CodeType::kU4, CodeType::kU8})
            for (ActivationRule rule : {kF32Input, kBF16Input, kInt8Input})
                for (bool deterministic : {false, true}) {
                    if (rule == kInt8Input && !is_integer(code)) continue;
                    LinearDescriptor d = linear();
                    d.deterministic = deterministic;
                    const KernelChoice choice = registry.select(d, part(code, rule), features);
                    ASSERT_NE(choice.kernel, nullptr);
                    EXPECT_EQ(choice.kernel->code, code);
                    EXPECT_EQ(choice.kernel->x == XType::kI8, rule == kInt8Input);
                    EXPECT_TRUE(features.has(choice.kernel->isa));
                    EXPECT_EQ(choice.refused.size() + 1, registry.kernels().size());
                    for (const KernelRefusal& refusal : choice.refused)
                        EXPECT_FALSE(refusal.reasons.empty()) << refusal.kernel->name;
                }
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
