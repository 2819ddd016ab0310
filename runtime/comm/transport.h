// A host's own collectives: plain data, part of the public C++ interface.
#pragma once
#include <cstddef>
#include <functional>
#include <span>

#include "runtime/base/error.h"

namespace conclave {

/// By these a host can embed an engine without sharing an MPI. All are needed. They block, and
/// throw Error (kHost with host_status(), or kComm) where they fail. Order, sizes, threads and what
/// each must do: conclave_transport in runtime/api/conclave.h.
struct Transport {
    int rank = 0, size = 1;
    std::function<void(float* data, size_t count, bool maximum)> all_reduce;
    std::function<void(const void* send, void* recv, std::span<const size_t> bytes)> all_gather;
    std::function<void(void* data, size_t bytes, int root)> broadcast;
    std::function<void()> barrier;
    std::function<void(const Error& error)> abort;  ///< throws nothing
};

}  // namespace conclave
