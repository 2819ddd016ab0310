#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "runtime/base/cpu.h"
#include "runtime/base/error.h"

namespace conclave {
namespace {

constexpr uint32_t kAll = (1u << kIsaCount) - 1;

ErrorCode code_of(CpuFeatures features, const char* name) {
    try {
        limit_isa(features, name);
    } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
        return e.code();
    }
    ADD_FAILURE() << "nothing thrown for " << name;
    return ErrorCode::kInternal;
}

TEST(Cpu, LimitDropsWhatIsAboveTheName) {
    for (int i = 0; i < kIsaCount; ++i) {
        const CpuFeatures cut = limit_isa({kAll}, isa_name(Isa(i)));
        for (int j = 0; j < kIsaCount; ++j) EXPECT_EQ(cut.has(Isa(j)), j <= i) << i << " " << j;
    }
    const CpuFeatures no_vnni{kAll & ~(1u << static_cast<int>(Isa::kAvx512Vnni))};
    EXPECT_EQ(limit_isa(no_vnni, "avx512bf16"), no_vnni);
}

TEST(Cpu, LimitRefusesUnknownAndMissing) {
    EXPECT_EQ(code_of({kAll}, "sse9"), ErrorCode::kUsage);
    EXPECT_EQ(code_of({kAll}, "AVX2"), ErrorCode::kUsage);
    EXPECT_EQ(code_of({kAll}, ""), ErrorCode::kUsage);
    EXPECT_EQ(code_of({1}, "avx2"), ErrorCode::kUnsupported);
    EXPECT_EQ(code_of({7}, "avx512bf16"), ErrorCode::kUnsupported);
}

TEST(Cpu, Names) {
    EXPECT_EQ(CpuFeatures{kAll}.to_string(), "avx2 avx512 avx512vnni avx512bf16");
    EXPECT_EQ(CpuFeatures{1}.to_string(), "generic");
    EXPECT_EQ((CpuFeatures{7} & CpuFeatures{3}).to_string(), "avx2");
}

TEST(Cpu, DetectionAgreesWithTheKernel) {
    std::ifstream info("/proc/cpuinfo");
    std::set<std::string> flags;
    std::string line, model;
    while (std::getline(info, line)) {
        std::istringstream words(line.substr(line.find(':') + 1));
        if (line.rfind("flags", 0) == 0 && flags.empty())
            for (std::string word; words >> word;) flags.insert(word);
        if (line.rfind("model name", 0) == 0 && model.empty())
            std::getline(words >> std::ws, model);
    }
    if (flags.empty()) GTEST_SKIP() << "/proc/cpuinfo lists no x86 flags";
    const auto has = [&](std::initializer_list<const char*> names) {
        for (const char* n : names)
            if (!flags.count(n)) return false;
        return true;
    };
    const CpuFeatures cpu = detect_cpu();
    const bool avx2 = has({"avx2", "fma", "f16c"});
    const bool avx512 = avx2 && has({"avx512f", "avx512bw", "avx512dq", "avx512vl"});
    EXPECT_TRUE(cpu.has(Isa::kGeneric));
    EXPECT_EQ(cpu.has(Isa::kAvx2), avx2);
    EXPECT_EQ(cpu.has(Isa::kAvx512), avx512);
    EXPECT_EQ(cpu.has(Isa::kAvx512Vnni), avx512 && has({"avx512_vnni"}));
    EXPECT_EQ(cpu.has(Isa::kAvx512Bf16), avx512 && has({"avx512_bf16"}));
    EXPECT_EQ(cpu_model_name().substr(0, 5), model.substr(0, 5));
}

TEST(Cpu, Environment) {
    const char* before = std::getenv("CONCLAVE_ISA");
    const std::string kept = before ? before : "";
    ::setenv("CONCLAVE_ISA", "generic", 1);
    EXPECT_EQ(cpu_from_environment(), CpuFeatures{1});
    ::setenv("CONCLAVE_ISA", "nonsense", 1);
    EXPECT_THROW(cpu_from_environment(), Error);
    ::unsetenv("CONCLAVE_ISA");
    EXPECT_EQ(cpu_from_environment(), detect_cpu());
    if (before) ::setenv("CONCLAVE_ISA", kept.c_str(), 1);
}

}  // namespace
}  // namespace conclave
