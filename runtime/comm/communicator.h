// Ranks and their collectives. One small abstract class; MPI, threads of one process (Local), a
// single rank (Self) and a host's own functions (callback_communicator.h, whose waits are the
// host's: what is said of waits here is not true of them) implement it. Calls marked Collective
// must be made by every rank of the communicator in the same order, each from the one thread that
// drives the rank.
//
// Failure: a wait never blocks for ever. It polls its operation together with a poison flag and a
// deadline. When a peer calls poison(), every wait of the other ranks throws the peer's Error; when
// the deadline passes, it throws kComm and names the rank that did not arrive and the phase.
// After either, the communicator stays poisoned: each later collective throws the same Error.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <span>
#include <string>

#include "runtime/base/error.h"

namespace conclave::comm {

/// What the collectives of one communicator have cost so far on this rank.
struct CommStats {
    uint64_t calls = 0;
    uint64_t bytes = 0;        ///< payload handed in or received by this rank
    uint64_t nanoseconds = 0;  ///< time inside collectives, waiting included
};

class Communicator {
  public:
    virtual ~Communicator() = default;

    virtual int rank() const = 0;
    virtual int size() const = 0;
    /// "mpi", "local", "self" or "transport".
    virtual const char* backend() const = 0;
    /// What carries it and how: "Open MPI 4.1.4, MPI_THREAD_FUNNELED"; empty where nothing does.
    virtual std::string library() const { return {}; }
    /// What the host should rather do; empty where there is nothing to say.
    virtual std::string advice() const { return {}; }
    /// Throws kUsage where the calling thread may not use it.
    virtual void check_thread() const {}
    /// Name of this rank's host, for messages.
    virtual std::string host() const = 0;
    /// This rank's index among the ranks of its host, and their number.
    virtual int local_rank() const = 0;
    virtual int local_size() const = 0;
    /// Number of hosts that the ranks live on.
    virtual int hosts() const = 0;

    /// Collective.
    virtual void barrier() = 0;
    /// Collective. `bytes` is the same on all ranks; `data` is read on `root`, written elsewhere.
    virtual void broadcast(void* data, size_t bytes, int root) = 0;
    /// Collective. In place, `data[0..count)`. The result is bit-identical on all ranks; its
    /// summation order depends on the number and placement of ranks (fast mode only).
    virtual void all_reduce_sum(float* data, size_t count) = 0;
    /// Collective. In place; exact whatever the order.
    virtual void all_reduce_max(float* data, size_t count) = 0;
    /// Collective. Rank r contributes bytes[r] bytes; `recv` gets all of them in rank order,
    /// back to back. `bytes` (size() entries) is the same on all ranks; an entry may be 0.
    /// `send` may be where the own piece lands in `recv`.
    virtual void all_gather(const void* send, void* recv, std::span<const size_t> bytes) = 0;
    /// Collective. Ranks with equal `color` form a new communicator, ordered by (key, rank).
    virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

    /// Not collective: wakes all peers, whose collectives then throw `error`. Never throws.
    virtual void poison(const Error& error) noexcept = 0;
    /// Longest time a wait may take before it throws kComm; <= 0 waits for ever. Default 300 s.
    virtual void set_deadline(double seconds) = 0;
    /// What this rank is doing ("load", "step 12 layer 3"); named by a peer's deadline error.
    virtual void set_phase(const char* phase) noexcept = 0;

    virtual CommStats stats() const = 0;

    /// Asked whether to stop, about every 20 ms, in every wait and by poll_abort(). A yes, or what
    /// it throws (kHost if that is no Error), ends the wait on all ranks. Empty: never asked.
    void set_abort(std::function<bool()> abort) { abort_ = std::move(abort); }
    /// For whoever computes for long between collectives: throws kCancelled if asked to stop.
    void poll_abort();

  private:
    std::function<bool()> abort_;
    std::chrono::steady_clock::time_point next_poll_{};
};

/// Collective. Every rank says whether it is well (`error` null) or not; if any is not, the error
/// of the lowest such rank (with that rank's number added) is thrown on all ranks.
void agree(Communicator& comm, const Error* error);

/// Collective helper: runs `body()` on every rank, then agrees: either all ranks return its
/// success, or all throw the same Error. `body` must not contain collectives of `comm`.
template <class Body>
void together(Communicator& comm, Body&& body) {
    std::unique_ptr<Error> failure;
    try {
        body();
    } catch (const Error& e) {
        failure = std::make_unique<Error>(e);
    } catch (const std::bad_alloc&) {
        failure = std::make_unique<Error>(ErrorCode::kResource, "out of memory");
    } catch (const std::exception& e) {
        failure = std::make_unique<Error>(ErrorCode::kInternal, e.what());
    } catch (...) {  // plugins' code may throw anything
        failure = std::make_unique<Error>(ErrorCode::kInternal,
                                          "something was thrown that is no std::exception");
    }
    agree(comm, failure.get());
}

}  // namespace conclave::comm
