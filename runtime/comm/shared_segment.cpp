#include "runtime/comm/shared_segment.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "runtime/comm/backoff.h"

namespace conclave::comm {
namespace {

constexpr size_t kPhaseWords = 8;
// Up to here every rank reads all slots itself: one step. Beyond, with more than two ranks, each
// reduces its own part and the parts are gathered: two steps, but each byte crosses only twice.
constexpr size_t kDirectBytes = 16 * 1024;

enum PoisonState : uint32_t { kClean = 0, kWriting = 1, kPoisoned = 2 };

template <class T>
T load(T& word, std::memory_order order = std::memory_order_acquire) {
    return std::atomic_ref<T>(word).load(order);
}
template <class T>
void store(T& word, T value, std::memory_order order = std::memory_order_release) {
    std::atomic_ref<T>(word).store(value, order);
}

}  // namespace

// Zero bytes are the initial state of both. Words that ranks share are only touched through
// atomic_ref, and padded so that no rank's publishing disturbs another's line (nor the neighbour
// that the prefetcher brings along: 128).
struct alignas(128) SharedSegment::Head {
    uint32_t poison_state;
    alignas(64) ErrorText poison;  // written once, before poison_state becomes kPoisoned
};
struct alignas(128) SharedSegment::Member {
    uint64_t arrived;            // number of the last step that this rank has published
    alignas(128) uint32_t left;  // 1: this rank has destroyed its end
    uint64_t phase[kPhaseWords];
};

size_t SharedSegment::default_slot_bytes(int ranks) {
    constexpr size_t kMost = 128 * 1024, kLeast = 8 * 1024, kAll = 4 * 1024 * 1024;
    return std::clamp(kAll / static_cast<size_t>(ranks) / 64 * 64, kLeast, kMost);
}

size_t SharedSegment::head_bytes(int ranks) {
    return sizeof(Head) + static_cast<size_t>(ranks) * sizeof(Member);
}

size_t SharedSegment::region_bytes(int ranks, size_t slot_bytes) {
    if (slot_bytes == 0) slot_bytes = default_slot_bytes(ranks);
    return head_bytes(ranks) + 2 * static_cast<size_t>(ranks) * slot_bytes;
}

SharedSegment::SharedSegment(std::byte* region, Config config)
    : region_(region),
      ranks_(static_cast<int>(config.names.size())),
      rank_(config.rank),
      names_(std::move(config.names)),
      host_(std::move(config.host)),
      slot_bytes_(config.slot_bytes == 0 ? default_slot_bytes(ranks_) : config.slot_bytes),
      crowded_(crowded_host(config.sharing > 0 ? config.sharing : ranks_)),
      inputs_(static_cast<size_t>(ranks_)) {
    static_assert(std::atomic_ref<uint64_t>::is_always_lock_free);
    CONCLAVE_CHECK(slot_bytes_ % 64 == 0);
    CONCLAVE_CHECK(rank_ >= 0 && rank_ < ranks_);
}

SharedSegment::~SharedSegment() { leave(); }

void SharedSegment::leave() noexcept { store(member(rank_).left, uint32_t{1}); }

bool SharedSegment::has_left(int rank) const noexcept { return load(member(rank).left) != 0; }

SharedSegment::Member& SharedSegment::member(int rank) const {
    return reinterpret_cast<Member*>(region_ + sizeof(Head))[rank];
}

std::byte* SharedSegment::slot_of(int rank, uint64_t step) const {
    const size_t index = 2 * static_cast<size_t>(rank) + step % 2;
    return region_ + head_bytes(ranks_) + index * slot_bytes_;
}

void SharedSegment::begin(const char* operation, double deadline_seconds) {
    check_poison();
    operation_ = operation;
    deadline_seconds_ = deadline_seconds;
    extra_seconds_ = 0;
    begun_ = std::chrono::steady_clock::now();
}

bool SharedSegment::overdue() const {
    if (deadline_seconds_ <= 0) return false;
    const std::chrono::duration<double> since = std::chrono::steady_clock::now() - begun_;
    return since.count() > deadline_seconds_ + extra_seconds_;
}

std::string SharedSegment::overdue_text() const {
    std::string seconds = std::to_string(deadline_seconds_);
    seconds.erase(seconds.find_last_not_of('0') + 1);
    if (!seconds.empty() && seconds.back() == '.') seconds.pop_back();
    return "deadline of " + seconds + " s passed in " + operation_;
}

std::string SharedSegment::departure_text() const {
    return std::string("a rank left before ") + operation_;
}

void SharedSegment::step() {
    ++step_;
    store(member(rank_).arrived, step_);
    for (int r = 0; r < ranks_; ++r)
        if (load(member(r).arrived) < step_) wait_for(r);
}

void SharedSegment::poll() {
    if (!poll_) return;
    try {
        poll_();
    } catch (const Error& e) {
        fail(e);
    }
}

void SharedSegment::wait_for(int rank) {
    Backoff backoff(crowded_);
    while (load(member(rank).arrived) < step_) {
        if (backoff.pause()) continue;
        // Who poisons after this step has seen all ranks publish it: then it is complete.
        if (poisoned() && load(member(rank).arrived) < step_) check_poison();
        poll();
        // A rank publishes before it leaves: look at `left` first, then once more at `arrived`.
        if (has_left(rank) && load(member(rank).arrived) < step_)
            fail_missing(departure_text(), true);
        if (overdue()) fail_missing(overdue_text(), false);
    }
}

void SharedSegment::fail_missing(const std::string& why, bool only_departed) {
    std::string missing;
    for (int r = 0; r < ranks_; ++r) {
        if (load(member(r).arrived) >= step_) continue;
        if (only_departed && !has_left(r)) continue;
        missing += (missing.empty() ? "" : "; ") + describe(r);
    }
    fail(Error(ErrorCode::kComm, why + (missing.empty() ? "" : ": missing " + missing)));
}

std::string SharedSegment::describe(int rank) const {
    char phase[kPhaseWords * sizeof(uint64_t) + 1] = {};
    for (size_t w = 0; w < kPhaseWords; ++w) {
        const uint64_t word = load(member(rank).phase[w], std::memory_order_relaxed);
        std::memcpy(phase + w * sizeof word, &word, sizeof word);
    }
    return "rank " + std::to_string(names_[static_cast<size_t>(rank)]) + " (host " + host_ +
           ", phase \"" + phase + "\")";
}

void SharedSegment::set_phase(const char* phase) noexcept {
    char text[kPhaseWords * sizeof(uint64_t)] = {};
    const size_t length = std::strlen(phase);
    std::memcpy(text, phase, std::min(length, sizeof text - 1));
    for (size_t w = 0; w < kPhaseWords; ++w) {
        uint64_t word;
        std::memcpy(&word, text + w * sizeof word, sizeof word);
        store(member(rank_).phase[w], word, std::memory_order_relaxed);
    }
}

void SharedSegment::poison(const ErrorText& error) noexcept {
    Head& head = *reinterpret_cast<Head*>(region_);
    uint32_t clean = kClean;
    if (!std::atomic_ref<uint32_t>(head.poison_state).compare_exchange_strong(clean, kWriting))
        return;
    poisoner_ = true;
    head.poison = error;
    store(head.poison_state, uint32_t{kPoisoned});
}

bool SharedSegment::poisoned() const noexcept {
    return load(reinterpret_cast<Head*>(region_)->poison_state) == kPoisoned;
}

ErrorText SharedSegment::poison_text() const noexcept {
    return reinterpret_cast<const Head*>(region_)->poison;
}

void SharedSegment::check_poison() const {
    if (poisoned()) throw unpack_error(poison_text());
}

void SharedSegment::fail(const Error& error) {
    poison(pack_error(error, -1));
    // Another rank may be writing its own: that takes a microsecond, unless it died in the middle.
    Backoff backoff(crowded_);
    for (int turn = 0; turn < 1000 && !poisoned(); ++turn) backoff.pause();
    check_poison();
    throw error;
}

void SharedSegment::barrier() {
    if (ranks_ > 1) step();
}

void SharedSegment::broadcast(void* data, size_t bytes, int root) {
    if (ranks_ == 1) return;
    auto* at = static_cast<std::byte*>(data);
    for (size_t left = bytes; left > 0;) {
        const size_t n = std::min(left, slot_bytes_);
        if (rank_ == root) std::memcpy(next_slot(), at, n);
        step();
        if (rank_ != root) std::memcpy(at, slot(root), n);
        at += n;
        left -= n;
    }
}

void SharedSegment::all_reduce(Reduction op, float* data, size_t count) {
    if (ranks_ == 1) return;
    const size_t chunk = slot_bytes_ / sizeof(float);
    for (size_t at = 0; at < count; at += chunk)
        reduce_chunk(op, data + at, std::min(chunk, count - at));
}

void SharedSegment::reduce_chunk(Reduction op, float* data, size_t count) {
    std::memcpy(next_slot(), data, count * sizeof(float));
    step();
    const auto inputs_from = [&](size_t first) {
        for (int r = 0; r < ranks_; ++r)
            inputs_[static_cast<size_t>(r)] = reinterpret_cast<const float*>(slot(r)) + first;
        return std::span<const float* const>(inputs_);
    };
    if (ranks_ == 2 || count * sizeof(float) <= kDirectBytes) {
        reduce_in_order(op, inputs_from(0), data, count);
        return;
    }
    // Parts of whole cache lines (16 floats), one for each rank.
    const size_t lines = (count + 15) / 16, ranks = static_cast<size_t>(ranks_);
    const auto part = [&](size_t r) { return std::min(count, lines * r / ranks * 16); };
    const size_t me = static_cast<size_t>(rank_), first = part(me), last = part(me + 1);
    reduce_in_order(op, inputs_from(first), reinterpret_cast<float*>(next_slot()) + first,
                    last - first);
    step();
    for (size_t r = 0; r < ranks; ++r) {
        const auto* from = reinterpret_cast<const float*>(slot(static_cast<int>(r))) + part(r);
        std::memcpy(data + part(r), from, (part(r + 1) - part(r)) * sizeof(float));
    }
}

void SharedSegment::all_gather(const void* send, std::byte* recv, std::span<const size_t> bytes) {
    const auto piece = [&](size_t r) { return bytes[r]; };
    size_t largest = 0, own_at = 0;
    for (size_t r = 0; r < bytes.size(); ++r) {
        largest = std::max(largest, piece(r));
        if (static_cast<int>(r) < rank_) own_at += piece(r);
    }
    const size_t own = piece(static_cast<size_t>(rank_));
    if (own > 0 && recv + own_at != send) std::memmove(recv + own_at, send, own);
    if (ranks_ == 1) return;
    for (size_t at = 0; at < largest; at += slot_bytes_) {
        if (at < own) std::memcpy(next_slot(), recv + own_at + at, std::min(own - at, slot_bytes_));
        step();
        std::byte* to = recv;
        for (size_t r = 0; r < bytes.size(); to += piece(r), ++r) {
            if (static_cast<int>(r) == rank_ || at >= piece(r)) continue;
            std::memcpy(to + at, slot(static_cast<int>(r)), std::min(piece(r) - at, slot_bytes_));
        }
    }
}

}  // namespace conclave::comm
