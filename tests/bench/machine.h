// Loops that do nothing but read, or nothing but multiply and add.
#pragma once
#include <cstddef>
#include <cstdint>

#include "runtime/base/cpu.h"

namespace conclave {

/// Products and sums of one type of number in registers, two operations each.
struct MachinePeak {
    float (*run)(int64_t rounds) = nullptr;  ///< null: the CPU has no such instruction
    int64_t ops_per_round = 0;
};

struct MachineProbe {
    uint64_t (*read)(const std::byte* p, size_t bytes);  ///< bytes: a multiple of 4096
    MachinePeak f32;
    MachinePeak int8;  ///< dot products of four, or (AVX2) pairs added in 16 bits and widened
    MachinePeak bf16 = {};
};

/// For the widest vectors of the CPU.
MachineProbe machine_probe(CpuFeatures cpu);

}  // namespace conclave
