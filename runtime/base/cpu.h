// What this CPU can execute. Detection is compiled without any ISA flag.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace conclave {

/// Instruction sets that kernels are written for. Each one includes those that its name says.
enum class Isa : uint8_t {
    kGeneric,     ///< plain C++, any CPU
    kAvx2,        ///< AVX2 + FMA + F16C
    kAvx512,      ///< AVX-512 F, BW, DQ, VL (and kAvx2)
    kAvx512Vnni,  ///< kAvx512 + VNNI
    kAvx512Bf16,  ///< kAvx512 + BF16
};
constexpr int kIsaCount = 5;

const char* isa_name(Isa isa);  ///< "generic", "avx2", "avx512", "avx512vnni", "avx512bf16"

/// A set of Isa values; ranks of one engine intersect theirs, so that all run the same kernels.
struct CpuFeatures {
    uint32_t mask = 1;  ///< bit i: Isa(i)

    bool has(Isa isa) const { return mask >> static_cast<int>(isa) & 1; }
    CpuFeatures operator&(CpuFeatures other) const { return {mask & other.mask}; }
    bool operator==(const CpuFeatures&) const = default;
    std::string to_string() const;  ///< "avx2 avx512 avx512vnni"
};

/// What CPUID and XGETBV say.
CpuFeatures detect_cpu();

/// `features` cut down to what `name` (an isa_name; the value of CONCLAVE_ISA) allows: "avx512"
/// also drops avx512vnni and avx512bf16. Throws kUsage for an unknown name, kUnsupported for an
/// ISA that the CPU lacks.
CpuFeatures limit_isa(CpuFeatures features, std::string_view name);

/// detect_cpu(), limited by the environment variable CONCLAVE_ISA if that is set.
CpuFeatures cpu_from_environment();

/// Brand string, e.g. "AMD EPYC 9R14"; "unknown" where CPUID has none.
std::string cpu_model_name();

}  // namespace conclave
