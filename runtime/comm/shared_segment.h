// The collectives of ranks that see one memory region: threads of a process (Local) or processes of
// a host (MPI). Written once, for both.
//
// A collective is a sequence of steps, numbered from 1 and equal on all ranks. In step s a rank
// writes its slot s % 2, publishes s, waits until every rank has published s, and then reads any
// slot s % 2. Two slots suffice: a rank rewrites slot s % 2 in step s + 2, which it enters only
// after all ranks have published s + 1, that is, have finished reading step s. Nothing is ever
// reset, so nothing races with a reset.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/comm/error_text.h"
#include "runtime/comm/reduction.h"

namespace conclave::comm {

class SharedSegment {
  public:
    struct Config {
        int rank = 0;            ///< of the caller, among the ranks of the segment
        std::vector<int> names;  ///< what messages call each rank: its number in the communicator
        std::string host;        ///< where they all live
        size_t slot_bytes = 0;   ///< 0: default_slot_bytes(); else a multiple of 64
        int sharing = 0;         ///< ranks that share the host's CPUs; 0: those of the segment
    };

    /// 128 KiB, less for so many ranks that their slots would take more than 8 MiB.
    static size_t default_slot_bytes(int ranks);
    /// Size of the region; slot_bytes as in Config.
    static size_t region_bytes(int ranks, size_t slot_bytes);
    /// The first so many bytes must be zero before any rank attaches; the slots need not be.
    static size_t head_bytes(int ranks);

    /// `region` is shared by all ranks, 64-byte aligned, and outlives this object.
    SharedSegment(std::byte* region, Config config);
    ~SharedSegment();
    SharedSegment(const SharedSegment&) = delete;
    SharedSegment& operator=(const SharedSegment&) = delete;

    int ranks() const { return ranks_; }
    int rank() const { return rank_; }
    bool crowded() const { return crowded_; }

    /// Starts a collective: its name and deadline are those of all waits until the next one.
    /// Throws if poisoned.
    void begin(const char* operation, double deadline_seconds);
    /// Moves the deadline of the current collective to `seconds` later than begin() set it.
    void extend_deadline(double seconds) { extra_seconds_ = seconds; }

    // Collective over the segment, between begin() and the next begin(). Contracts: Communicator.
    void barrier();
    void broadcast(void* data, size_t bytes, int root);
    void all_reduce(Reduction op, float* data, size_t count);
    void all_gather(const void* send, std::byte* recv, std::span<const size_t> bytes);

    /// The first one stays. Not collective.
    void poison(const ErrorText& error) noexcept;
    bool poisoned() const noexcept;
    /// Whether it was this rank that poisoned the segment.
    bool poisoner() const noexcept { return poisoner_; }
    ErrorText poison_text() const noexcept;
    /// Throws if poisoned.
    void check_poison() const;
    /// Poisons with `error`, then throws whichever error was first.
    [[noreturn]] void fail(const Error& error);

    bool overdue() const;
    /// "deadline of 300 s passed in all_reduce_sum"
    std::string overdue_text() const;
    /// "a rank left before all_reduce_sum"
    std::string departure_text() const;

    /// This rank takes no further part: who waits for it, or will, fails at once.
    void leave() noexcept;
    bool has_left(int rank) const noexcept;

    void set_phase(const char* phase) noexcept;

    /// Called in every wait that takes longer than a spin. What it throws poisons the segment.
    void set_poll(std::function<void()> poll) { poll_ = std::move(poll); }
    void poll();

  private:
    struct Head;
    struct Member;

    Member& member(int rank) const;
    const std::byte* slot(int rank) const { return slot_of(rank, step_); }
    std::byte* next_slot() { return slot_of(rank_, step_ + 1); }
    std::byte* slot_of(int rank, uint64_t step) const;

    void step();
    void wait_for(int rank);
    [[noreturn]] void fail_missing(const std::string& why, bool only_departed);
    std::string describe(int rank) const;
    void reduce_chunk(Reduction op, float* data, size_t count);

    std::byte* region_;
    int ranks_, rank_;
    std::vector<int> names_;
    std::string host_;
    size_t slot_bytes_;
    bool crowded_;
    bool poisoner_ = false;
    uint64_t step_ = 0;
    std::vector<const float*> inputs_;  // one per rank, for reductions

    const char* operation_ = "";
    double deadline_seconds_ = 0, extra_seconds_ = 0;
    std::chrono::steady_clock::time_point begun_{};
    std::function<void()> poll_;
};

}  // namespace conclave::comm
