// Step-lifetime memory: a stack of float and byte buffers that is kept and reused.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "runtime/base/error.h"

namespace conclave {

/// A bump allocator in chunks; addresses stay valid until the Scope that was open at allocation
/// ends. One thread. Contents are undefined.
class Workspace {
  public:
    /// Frees on destruction all that was allocated since construction.
    class Scope {
      public:
        explicit Scope(Workspace& w) : w_(w), chunk_(w.chunk_), used_(w.used_) {}
        ~Scope() { w_.chunk_ = chunk_, w_.used_ = used_; }
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;

      private:
        Workspace& w_;
        size_t chunk_, used_;
    };

    template <class T>
    T* allocate(int64_t count) {
        return reinterpret_cast<T*>(bytes(static_cast<size_t>(count) * sizeof(T)));
    }

    size_t capacity() const {
        size_t total = 0;
        for (const Chunk& c : chunks_) total += c.size;
        return total;
    }

  private:
    static constexpr size_t kAlign = 64;        // one cache line
    static constexpr size_t kChunk = 1u << 20;  // small enough not to matter for RSS
    struct Free {
        void operator()(std::byte* p) const { std::free(p); }
    };
    struct Chunk {
        std::unique_ptr<std::byte, Free> data;
        size_t size = 0;
    };

    std::byte* bytes(size_t n) {
        n = (n + kAlign - 1) / kAlign * kAlign;
        while (chunk_ < chunks_.size() && used_ + n > chunks_[chunk_].size) ++chunk_, used_ = 0;
        if (chunk_ == chunks_.size()) {
            Chunk c;
            c.size = n > kChunk ? n : kChunk;
            c.data.reset(static_cast<std::byte*>(std::aligned_alloc(kAlign, c.size)));
            if (!c.data) throw std::bad_alloc();
            chunks_.push_back(std::move(c));
        }
        std::byte* p = chunks_[chunk_].data.get() + used_;
        used_ += n;
        return p;
    }

    std::vector<Chunk> chunks_;
    size_t chunk_ = 0, used_ = 0;
};

}  // namespace conclave
