// Softmax attention of a few query heads that share one KV head, over keys held in fixed blocks.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/encoding.h"
#include "runtime/base/cpu.h"

namespace conclave::quant {

/// out_h = sum over t in [begin, end) of p_t V[t], p = softmax(scale * q_h . K[t]) (f32).
/// Runs over blocks of block_tokens in ascending order (online softmax); each head's result is a
/// function of its q, the keys and values, begin and end only: consistent.
struct AttentionCall {
    const float* const* q = nullptr;  ///< `heads` pointers to d floats
    float* const* out = nullptr;      ///< `heads` pointers to dv floats
    int64_t heads = 0;
    /// Block b holds tokens [b * block_tokens, (b + 1) * block_tokens); token t of it begins
    /// (t * k_stride) resp. (t * v_stride) elements after the pointer.
    const std::byte* const* k_blocks = nullptr;
    const std::byte* const* v_blocks = nullptr;
    int64_t k_stride = 0, v_stride = 0;
    CodeType kv_type = CodeType::kF32;  ///< kF32, kF16 or kBF16
    int64_t block_tokens = 0;           ///< <= kMaxBlockTokens
    int64_t begin = 0, end = 0;         ///< keys [begin, end), end > begin
    int64_t d = 0, dv = 0;
    float scale = 1;
    /// null, or `heads` logits that take part in each head's softmax sum and have no value row.
    const float* sinks = nullptr;
    std::byte* scratch = nullptr;  ///< attention_scratch_bytes(), 64-byte aligned
};

constexpr int64_t kMaxBlockTokens = 64;

size_t attention_scratch_bytes(int64_t heads, int64_t d, int64_t dv);

using AttentionFn = void (*)(const AttentionCall&);
AttentionFn attention_kernel(CpuFeatures cpu);

}  // namespace conclave::quant
