#include "runtime/base/cpu.h"

#include <array>
#include <cstdlib>
#include <cstring>

#include "runtime/base/error.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#define CONCLAVE_X86 1
#else
#define CONCLAVE_X86 0
#endif

namespace conclave {
namespace {

constexpr std::array<const char*, kIsaCount> kNames = {"generic", "avx2", "avx512", "avx512vnni",
                                                       "avx512bf16"};

constexpr uint32_t bit(Isa isa) { return 1u << static_cast<int>(isa); }

#if CONCLAVE_X86
struct Registers {
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// All zero for a leaf that the CPU does not have.
Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r;
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

/// Register state that the operating system saves: XCR0.
uint64_t enabled_state() {
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
}

constexpr bool all(uint32_t value, uint32_t mask) { return (value & mask) == mask; }

uint32_t x86_features() {
    const Registers basic = cpuid(1, 0);
    constexpr uint32_t kOsxsave = 1u << 27;
    if (!all(basic.ecx, kOsxsave)) return bit(Isa::kGeneric);
    const uint64_t state = enabled_state();
    constexpr uint64_t kYmm = 0x06;  // XMM, YMM
    constexpr uint64_t kZmm = 0xe6;  // and opmask, upper ZMM, ZMM16-31
    const Registers more = cpuid(7, 0);
    const Registers further = more.eax >= 1 ? cpuid(7, 1) : Registers{};

    constexpr uint32_t kFma = 1u << 12, kAvx = 1u << 28, kF16c = 1u << 29;  // leaf 1 ecx
    constexpr uint32_t kAvx2 = 1u << 5;                                     // leaf 7 ebx
    constexpr uint32_t kAvx512FDqBwVl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    constexpr uint32_t kVnni = 1u << 11;  // leaf 7 ecx
    constexpr uint32_t kBf16 = 1u << 5;   // leaf 7.1 eax

    uint32_t mask = bit(Isa::kGeneric);
    if ((state & kYmm) != kYmm || !all(basic.ecx, kFma | kAvx | kF16c) || !all(more.ebx, kAvx2))
        return mask;
    mask |= bit(Isa::kAvx2);
    if ((state & kZmm) != kZmm || !all(more.ebx, kAvx512FDqBwVl)) return mask;
    mask |= bit(Isa::kAvx512);
    if (all(more.ecx, kVnni)) mask |= bit(Isa::kAvx512Vnni);
    if (all(further.eax, kBf16)) mask |= bit(Isa::kAvx512Bf16);
    return mask;
}
#endif

}  // namespace

const char* isa_name(Isa isa) { return kNames.at(static_cast<size_t>(isa)); }

std::string CpuFeatures::to_string() const {
    std::string text;
    for (int i = 1; i < kIsaCount; ++i) {
        if (!has(Isa(i))) continue;
        if (!text.empty()) text += ' ';
        text += isa_name(Isa(i));
    }
    return text.empty() ? isa_name(Isa::kGeneric) : text;
}

CpuFeatures detect_cpu() {
#if CONCLAVE_X86
    return {x86_features()};
#else
    return {bit(Isa::kGeneric)};
#endif
}

CpuFeatures limit_isa(CpuFeatures features, std::string_view name) {
    for (int i = 0; i < kIsaCount; ++i) {
        if (name != isa_name(Isa(i))) continue;
        if (!features.has(Isa(i)))
            throw Error(ErrorCode::kUnsupported, "the CPU lacks the instruction set asked for")
                .expected(std::string(name))
                .found(features.to_string());
        return {features.mask & ((2u << i) - 1)};
    }
    std::string known;
    for (const char* n : kNames) known += known.empty() ? n : std::string(", ") + n;
    throw Error(ErrorCode::kUsage, "unknown instruction set (CONCLAVE_ISA)")
        .expected("one of " + known)
        .found("\"" + std::string(name) + "\"");
}

CpuFeatures cpu_from_environment() {
    const char* name = std::getenv("CONCLAVE_ISA");
    return name ? limit_isa(detect_cpu(), name) : detect_cpu();
}

std::string cpu_model_name() {
#if CONCLAVE_X86
    constexpr uint32_t kFirst = 0x80000002, kLast = 0x80000004;
    if (static_cast<uint32_t>(__get_cpuid_max(0x80000000, nullptr)) < kLast) return "unknown";
    std::array<char, 48> brand{};
    for (uint32_t leaf = kFirst; leaf <= kLast; ++leaf) {
        const Registers r = cpuid(leaf, 0);
        std::memcpy(brand.data() + (leaf - kFirst) * sizeof(r), &r, sizeof(r));
    }
    std::string_view name(brand.data(), brand.size());
    name = name.substr(0, name.find('\0'));
    const size_t first = name.find_first_not_of(' ');
    if (first == std::string_view::npos) return "unknown";
    return std::string(name.substr(first, name.find_last_not_of(' ') - first + 1));
#else
    return "unknown";
#endif
}

}  // namespace conclave
