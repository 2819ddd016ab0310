// What crosses hosts: the leaders' (lowest ranks of each host) non-blocking messages, every wait of
// which also looks for poison, at home and from other hosts, and at the deadline.
//
// Messages travel from and to buffers of the link, never of the caller: when a wait ends in an
// error, MPI may still write to or read from them, so after a poison they are given up, not freed.
//
// Needs <mpi.h>; only this folder's sources include it.
#pragma once
#include "runtime/comm/mpi_call.h"
// mpi_call.h comes first: it configures <mpi.h>.
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/comm/error_text.h"
#include "runtime/comm/host_map.h"
#include "runtime/comm/reduction.h"
#include "runtime/comm/shared_segment.h"

namespace conclave::comm {

class LeaderLink {
  public:
    /// All three outlive the link. `max_message_bytes` bounds one MPI message.
    LeaderLink(MPI_Comm comm, const HostMap& map, SharedSegment& segment, size_t max_message_bytes);
    ~LeaderLink();
    LeaderLink(const LeaderLink&) = delete;
    LeaderLink& operator=(const LeaderLink&) = delete;

    /// Collective over all ranks, with no deadline: makes the connections that relay() needs, for
    /// it cannot wait for one.
    void connect();

    // Collective over the leaders; no-ops with one host.
    void barrier();
    void broadcast(std::byte* data, size_t bytes, int root_host);
    void all_reduce(Reduction op, float* data, size_t count);
    /// Host h's piece is bytes[h] long; pieces lie back to back in `data`, the own one is there.
    void all_gather(std::byte* data, std::span<const size_t> bytes);

    /// Passes the segment's poison on to the other leaders, once: on the rank that poisoned it, and
    /// on the leader.
    void relay() noexcept;
    /// Takes in poison that another leader has sent.
    void receive_poison();

    /// After the segment's leave(): tells the other leaders, and waits a little for their word.
    /// True if nothing can be under way to this rank any more, so that the MPI communicator may be
    /// freed.
    bool close() noexcept;

  private:
    struct Piece {
        int host;
        std::byte* data;  // in outbox_ or inbox_
        size_t bytes;
    };

    void exchange(std::span<const Piece> sends, std::span<const Piece> receives);
    void post(bool send, const Piece& piece);
    void wait();
    std::string missing_hosts(bool only_departed) const;
    bool has_closed(int host) const;
    void reserve(size_t outbox, size_t inbox);
    void all_reduce_direct(Reduction op, float* data, size_t count);
    void all_reduce_parts(Reduction op, float* data, size_t count);
    int hosts() const { return map_.hosts(); }

    MPI_Comm comm_;
    const HostMap& map_;
    SharedSegment& segment_;
    size_t max_message_bytes_;

    std::vector<MPI_Request> requests_;
    std::vector<int> request_hosts_;  // who is at the other end of each
    struct Buffers {
        std::vector<std::byte> outbox, inbox;
        ErrorText poison;
        std::byte token{};
    };
    std::unique_ptr<Buffers> buffers_ = std::make_unique<Buffers>();
    bool relayed_ = false;    // or received from another leader: nobody is left to tell
    bool abandoned_ = false;  // closed without an answer
};

}  // namespace conclave::comm
