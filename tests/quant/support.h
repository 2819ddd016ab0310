// Random inputs, and memory that ends where a page may not be touched.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "quant/encoding.h"
#include "runtime/base/half.h"

namespace conclave::quant::test {

class Random {
  public:
    explicit Random(uint32_t seed) : engine_(seed) {}
    int64_t in(int64_t lo, int64_t hi) {
        return std::uniform_int_distribution<int64_t>(lo, hi)(engine_);
    }
    float normal() { return std::normal_distribution<float>()(engine_); }
    std::vector<float> normals(int64_t n, float scale = 1) {
        std::vector<float> v(static_cast<size_t>(n));
        for (float& a : v) a = scale * normal();
        return v;
    }

  private:
    std::mt19937 engine_;
};

/// `bytes` bytes that end at a page without access; filled with 0xff (NaN in every type).
class GuardedBytes {
  public:
    explicit GuardedBytes(size_t bytes) {
        const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        const size_t body = (bytes + page - 1) / page * page;
        mapped_ = body + page;
        base_ = static_cast<std::byte*>(
            mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (base_ == MAP_FAILED || mprotect(base_ + body, page, PROT_NONE) != 0)
            throw std::bad_alloc();
        data_ = base_ + body - bytes;
        std::memset(data_, 0xff, bytes);
    }
    GuardedBytes(GuardedBytes&& other) noexcept
        : base_(other.base_), data_(other.data_), mapped_(other.mapped_) {
        other.base_ = nullptr;
    }
    GuardedBytes& operator=(GuardedBytes&&) = delete;
    ~GuardedBytes() {
        if (base_) munmap(base_, mapped_);
    }

    std::byte* data() { return data_; }
    const std::byte* data() const { return data_; }
    template <class T>
    T* as() {
        return reinterpret_cast<T*>(data_);
    }

  private:
    std::byte* base_;
    std::byte* data_;
    size_t mapped_;
};

/// 64-byte aligned bytes, filled with 0xff.
class AlignedBytes {
  public:
    explicit AlignedBytes(size_t bytes)
        : data_(static_cast<std::byte*>(::operator new (bytes + 1, std::align_val_t{64}))),
          size_(bytes) {
        std::memset(data_, 0xff, bytes);
    }
    AlignedBytes(AlignedBytes&& other) noexcept : data_(other.data_), size_(other.size_) {
        other.data_ = nullptr;
    }
    AlignedBytes& operator=(AlignedBytes&&) = delete;
    ~AlignedBytes() { ::operator delete (data_, std::align_val_t{64}); }

    std::byte* data() { return data_; }
    const std::byte* data() const { return data_; }
    size_t size() const { return size_; }

  private:
    std::byte* data_;
    size_t size_;
};

inline int64_t code_bytes(CodeType type) { return code_bits(type) / 8; }

inline void store_code(CodeType type, float v, std::byte* to) {
    const uint16_t half = type == CodeType::kF16 ? f32_to_f16(v) : f32_to_bf16(v);
    if (type == CodeType::kF32)
        std::memcpy(to, &v, 4);
    else
        std::memcpy(to, &half, 2);
}

inline float load_code(CodeType type, const std::byte* from) {
    float v;
    uint16_t half;
    if (type == CodeType::kF32) return std::memcpy(&v, from, 4), v;
    std::memcpy(&half, from, 2);
    return type == CodeType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
}

inline uint32_t bits(float v) { return std::bit_cast<uint32_t>(v); }
constexpr float kPoison = std::bit_cast<float>(0x7fedcba9u);  ///< a NaN that no kernel computes

}  // namespace conclave::quant::test
