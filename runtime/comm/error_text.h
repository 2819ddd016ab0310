// An Error as plain bytes: how it crosses shared memory and the network.
#pragma once
#include <cstddef>
#include <cstdint>

#include "runtime/base/error.h"

namespace conclave::comm {

/// Longest text that travels; what is longer ends in "...". With its head the struct stays below
/// 4 KiB, the smallest eager limit of Open MPI's transports, so that sending one never waits for
/// the receiver.
constexpr size_t kErrorTextBytes = 2048;

struct ErrorText {
    uint32_t code = 0;
    uint32_t length = 0;
    int32_t host_status = 0;
    char text[kErrorTextBytes] = {};
};

/// `rank` is added if the error names none yet and `rank` >= 0.
ErrorText pack_error(const Error& error, int rank) noexcept;

/// The Error it stands for; kComm where the bytes are not one.
Error unpack_error(const ErrorText& packed);

}  // namespace conclave::comm
