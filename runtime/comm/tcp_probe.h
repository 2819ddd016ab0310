// What a message over TCP costs the CPU.
#pragma once
#include <cstddef>

namespace conclave::comm {

/// Seconds for sending and receiving `bytes`, at most 64 KiB, over the loopback interface: the
/// system's work, no wire and no waiting. Before each message `streamed` bytes of memory, at most
/// 32 MiB, are read, as weights are. 0 where there is no such interface.
double tcp_message_seconds(size_t bytes, size_t streamed);

}  // namespace conclave::comm
