// Loops that do nothing but read, or nothing but multiply and add.
#pragma once
#include <cstddef>
#include <cstdint>

#include "runtime/base/cpu.h"

namespace conclave {

struct MachineProbe {
    uint64_t (*read)(const std::byte* p, size_t bytes);  ///< bytes: a multiple of 4096
    float (*fma)(int64_t rounds);
    int64_t flops_per_round;
};

/// For the widest vectors of the CPU.
MachineProbe machine_probe(CpuFeatures cpu);

}  // namespace conclave
