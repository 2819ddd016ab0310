#include "runtime/comm/leader_link.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>

#include "runtime/comm/backoff.h"

namespace conclave::comm {
namespace {

constexpr int kDataTag = 1, kPoisonTag = 2, kCloseTag = 3, kHelloTag = 4;
using Clock = std::chrono::steady_clock;
// How long close() waits for leaders that are not there yet: they may have work to finish, but then
// one MPI communicator is kept for good, which harms nobody.
constexpr std::chrono::seconds kClosePatience{2};
// A leader's farewell may overtake the end of a large message that came on another rail.
constexpr std::chrono::seconds kFarewellLead{1};
// Up to here each leader sends its sums to all others, one network latency; beyond, parts are
// reduced and gathered: two latencies, but 2 instead of hosts - 1 times the data on each wire.
constexpr size_t kDirectBytes = 64 * 1024;

}  // namespace

LeaderLink::LeaderLink(MPI_Comm comm, const HostMap& map, SharedSegment& segment,
                       size_t max_message_bytes)
    : comm_(comm), map_(map), segment_(segment), max_message_bytes_(max_message_bytes) {}

LeaderLink::~LeaderLink() {
    if (segment_.poisoned() || abandoned_) buffers_.release();  // MPI may still use them
}

void LeaderLink::connect() {
    std::vector<MPI_Request> requests;
    std::vector<std::byte> tokens(map_.host_of.size());
    for (size_t r = 0; r < tokens.size() && map_.leads(); ++r) {
        if (map_.host_of[r] == map_.host) continue;
        CONCLAVE_MPI(MPI_Irecv(&tokens[r], 1, MPI_BYTE, static_cast<int>(r), kHelloTag, comm_,
                               &requests.emplace_back()));
    }
    for (int h = 0; h < hosts(); ++h) {
        if (h == map_.host) continue;
        CONCLAVE_MPI(MPI_Isend(&buffers_->token, 1, MPI_BYTE, map_.leader(h), kHelloTag, comm_,
                               &requests.emplace_back()));
    }
    CONCLAVE_MPI(
        MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE));
}

void LeaderLink::barrier() {
    if (hosts() == 1) return;
    const std::vector<size_t> bytes(static_cast<size_t>(hosts()), 1);
    std::vector<std::byte> tokens(bytes.size());
    all_gather(tokens.data(), bytes);
}

// A binomial tree: host v (counted from the root) hears from v without its lowest set bit.
void LeaderLink::broadcast(std::byte* data, size_t bytes, int root_host) {
    if (hosts() == 1 || bytes == 0) return;
    reserve(bytes, 0);
    std::byte* buffer = buffers_->outbox.data();
    const int self = (map_.host - root_host + hosts()) % hosts();
    const auto piece = [&](int v) { return Piece{(v + root_host) % hosts(), buffer, bytes}; };
    int bit = 1;
    while (bit < hosts() && (self & bit) == 0) bit <<= 1;
    if (self == 0) {
        std::memcpy(buffer, data, bytes);
    } else {
        exchange({}, {{piece(self & ~bit)}});
        std::memcpy(data, buffer, bytes);
    }
    std::vector<Piece> sends;
    for (bit >>= 1; bit > 0; bit >>= 1)
        if (self + bit < hosts()) sends.push_back(piece(self + bit));
    exchange(sends, {});
}

void LeaderLink::all_reduce(Reduction op, float* data, size_t count) {
    if (hosts() == 1 || count == 0) return;
    if (hosts() == 2 || count * sizeof(float) <= kDirectBytes)
        all_reduce_direct(op, data, count);
    else
        all_reduce_parts(op, data, count);
}

void LeaderLink::all_reduce_direct(Reduction op, float* data, size_t count) {
    const size_t bytes = count * sizeof(float), n = static_cast<size_t>(hosts());
    reserve(bytes, n * bytes);
    std::memcpy(buffers_->outbox.data(), data, bytes);
    std::vector<Piece> sends, receives;
    std::vector<const float*> inputs(n, data);
    for (int h = 0; h < hosts(); ++h) {
        if (h == map_.host) continue;
        std::byte* from = buffers_->inbox.data() + static_cast<size_t>(h) * bytes;
        sends.push_back({h, buffers_->outbox.data(), bytes});
        receives.push_back({h, from, bytes});
        inputs[static_cast<size_t>(h)] = reinterpret_cast<const float*>(from);
    }
    exchange(sends, receives);
    reduce_in_order(op, inputs, data, count);
}

void LeaderLink::all_reduce_parts(Reduction op, float* data, size_t count) {
    const size_t n = static_cast<size_t>(hosts()), me = static_cast<size_t>(map_.host);
    const auto part = [&](size_t h) { return count / n * h + std::min(h, count % n); };
    const auto part_bytes = [&](size_t h) { return (part(h + 1) - part(h)) * sizeof(float); };
    const size_t own_count = part(me + 1) - part(me), own_bytes = part_bytes(me);
    reserve(count * sizeof(float), std::max(n * own_bytes, count * sizeof(float)));
    std::byte *outbox = buffers_->outbox.data(), *inbox = buffers_->inbox.data();
    std::memcpy(outbox, data, count * sizeof(float));

    std::vector<Piece> sends, receives;
    std::vector<const float*> inputs(n, data + part(me));
    for (size_t h = 0; h < n; ++h) {
        if (h == me) continue;
        sends.push_back({static_cast<int>(h), outbox + part(h) * sizeof(float), part_bytes(h)});
        receives.push_back({static_cast<int>(h), inbox + h * own_bytes, own_bytes});
        inputs[h] = reinterpret_cast<const float*>(inbox + h * own_bytes);
    }
    exchange(sends, receives);
    float* own = data + part(me);
    reduce_in_order(op, inputs, own, own_count);

    std::byte* own_out = outbox + part(me) * sizeof(float);  // sent to nobody so far
    std::memcpy(own_out, own, own_bytes);
    sends.clear();
    receives.clear();
    for (size_t h = 0; h < n; ++h) {
        if (h == me) continue;
        sends.push_back({static_cast<int>(h), own_out, own_bytes});
        receives.push_back({static_cast<int>(h), inbox + part(h) * sizeof(float), part_bytes(h)});
    }
    exchange(sends, receives);
    for (size_t h = 0; h < n; ++h)
        if (h != me) std::memcpy(data + part(h), inbox + part(h) * sizeof(float), part_bytes(h));
}

void LeaderLink::all_gather(std::byte* data, std::span<const size_t> bytes) {
    if (hosts() == 1) return;
    size_t total = 0, own_at = 0;
    for (int h = 0; h < hosts(); ++h) {
        if (h == map_.host) own_at = total;
        total += bytes[static_cast<size_t>(h)];
    }
    const size_t own = bytes[static_cast<size_t>(map_.host)];
    reserve(own, total);
    if (own > 0) std::memcpy(buffers_->outbox.data(), data + own_at, own);
    std::vector<Piece> sends, receives;
    size_t at = 0;
    for (int h = 0; h < hosts(); at += bytes[static_cast<size_t>(h)], ++h) {
        if (h == map_.host) continue;
        sends.push_back({h, buffers_->outbox.data(), own});
        receives.push_back({h, buffers_->inbox.data() + at, bytes[static_cast<size_t>(h)]});
    }
    exchange(sends, receives);
    const std::byte* inbox = buffers_->inbox.data();
    if (own_at > 0) std::memcpy(data, inbox, own_at);
    const size_t after = own_at + own;
    if (total > after) std::memcpy(data + after, inbox + after, total - after);
}

void LeaderLink::reserve(size_t outbox, size_t inbox) {
    if (buffers_->outbox.size() < outbox) buffers_->outbox.resize(outbox);
    if (buffers_->inbox.size() < inbox) buffers_->inbox.resize(inbox);
}

void LeaderLink::exchange(std::span<const Piece> sends, std::span<const Piece> receives) {
    requests_.clear();
    request_hosts_.clear();
    for (const Piece& piece : receives) post(false, piece);
    for (const Piece& piece : sends) post(true, piece);
    wait();
}

void LeaderLink::post(bool send, const Piece& piece) {
    for (size_t at = 0; at < piece.bytes; at += max_message_bytes_) {
        const int n = static_cast<int>(std::min(piece.bytes - at, max_message_bytes_));
        const int peer = map_.leader(piece.host);
        MPI_Request request = MPI_REQUEST_NULL;
        if (send)
            CONCLAVE_MPI(MPI_Isend(piece.data + at, n, MPI_BYTE, peer, kDataTag, comm_, &request));
        else
            CONCLAVE_MPI(MPI_Irecv(piece.data + at, n, MPI_BYTE, peer, kDataTag, comm_, &request));
        requests_.push_back(request);
        request_hosts_.push_back(piece.host);
    }
}

void LeaderLink::wait() {
    Backoff backoff(segment_.crowded());
    Clock::time_point departed{};
    for (;;) {
        int done = 0;
        CONCLAVE_MPI(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                                 MPI_STATUSES_IGNORE));
        if (done != 0) return;
        if (backoff.pause()) continue;
        segment_.check_poison();
        segment_.poll();
        if (const std::string who = missing_hosts(true); !who.empty()) {
            if (departed == Clock::time_point{}) departed = Clock::now();
            if (Clock::now() - departed > kFarewellLead)
                segment_.fail(Error(ErrorCode::kComm, segment_.departure_text() + who));
        }
        if (segment_.overdue())
            segment_.fail(Error(ErrorCode::kComm, segment_.overdue_text() + missing_hosts(false)));
    }
}

/// ": missing rank 4 (host b); ...": whose messages have not come, or gone, yet.
std::string LeaderLink::missing_hosts(bool only_departed) const {
    std::string text;
    if (only_departed && !has_closed(-1)) return text;
    std::vector<bool> missing(static_cast<size_t>(hosts()));
    for (size_t i = 0; i < requests_.size(); ++i) {
        const auto host = static_cast<size_t>(request_hosts_[i]);
        if (missing[host] || (only_departed && !has_closed(request_hosts_[i]))) continue;
        int complete = 0;
        MPI_Request_get_status(requests_[i], &complete, MPI_STATUS_IGNORE);
        missing[host] = complete == 0;
    }
    for (int h = 0; h < hosts(); ++h) {
        if (!missing[static_cast<size_t>(h)]) continue;
        const auto leader = static_cast<size_t>(map_.leader(h));
        text += (text.empty() ? ": missing rank " : "; rank ") + std::to_string(leader) +
                " (host " + map_.names[leader] + ")";
    }
    return text;
}

/// Whether `host` (-1: any) has said farewell.
bool LeaderLink::has_closed(int host) const {
    int there = 0;
    const int from = host < 0 ? MPI_ANY_SOURCE : map_.leader(host);
    const int code = MPI_Iprobe(from, kCloseTag, comm_, &there, MPI_STATUS_IGNORE);
    return code == MPI_SUCCESS && there != 0;
}

bool LeaderLink::close() noexcept {
    if (segment_.poisoned()) return false;
    if (hosts() == 1 || !map_.leads()) return true;  // nobody ever sends to this rank
    Backoff backoff(segment_.crowded());
    const auto begun = Clock::now();
    const auto waits_on = [&] {  // false: it is no use
        if (backoff.pause()) return true;
        try {
            segment_.check_poison();
            receive_poison();
        } catch (const std::exception&) {
            relay();
            return false;
        }
        return Clock::now() - begun <= kClosePatience;
    };
    // A farewell says that no rank of this host will send poison any more.
    for (int r = 0; r < segment_.ranks(); ++r)
        while (!segment_.has_left(r))
            if (!waits_on()) return false;
    if (segment_.poisoned()) {
        relay();
        return false;
    }
    abandoned_ = true;  // until all is well
    std::vector<MPI_Request> sends(static_cast<size_t>(hosts()), MPI_REQUEST_NULL);
    for (int h = 0; h < hosts(); ++h)
        if (h != map_.host && MPI_Isend(&buffers_->token, 1, MPI_BYTE, map_.leader(h), kCloseTag,
                                        comm_, &sends[static_cast<size_t>(h)]) != MPI_SUCCESS)
            return false;
    for (int h = 0; h < hosts(); ++h) {
        if (h == map_.host) continue;
        while (!has_closed(h))
            if (!waits_on()) return false;
        std::byte farewell;
        if (MPI_Recv(&farewell, 1, MPI_BYTE, map_.leader(h), kCloseTag, comm_, MPI_STATUS_IGNORE) !=
            MPI_SUCCESS)
            return false;
    }
    int done = 0;
    while (done == 0)
        if (MPI_Testall(hosts(), sends.data(), &done, MPI_STATUSES_IGNORE) != MPI_SUCCESS ||
            !waits_on())
            break;
    abandoned_ = done == 0;
    return !abandoned_;
}

void LeaderLink::relay() noexcept {
    if (relayed_ || hosts() == 1 || !segment_.poisoned()) return;
    if (!map_.leads() && !segment_.poisoner()) return;  // whoever did it tells
    relayed_ = true;
    buffers_->poison = segment_.poison_text();
    for (int h = 0; h < hosts(); ++h) {
        if (h == map_.host) continue;
        MPI_Request request = MPI_REQUEST_NULL;  // completes, or ends with the process
        MPI_Isend(&buffers_->poison, sizeof(ErrorText), MPI_BYTE, map_.leader(h), kPoisonTag, comm_,
                  &request);
        // An eager message needs no more than a push; nothing is waited for.
        int done = 0;
        for (int turn = 0; turn < 16 && done == 0 && request != MPI_REQUEST_NULL; ++turn)
            if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) break;
    }
}

void LeaderLink::receive_poison() {
    if (hosts() == 1 || relayed_) return;
    int there = 0;
    MPI_Status status;
    CONCLAVE_MPI(MPI_Iprobe(MPI_ANY_SOURCE, kPoisonTag, comm_, &there, &status));
    if (there == 0) return;
    ErrorText text;
    CONCLAVE_MPI(MPI_Recv(&text, sizeof text, MPI_BYTE, status.MPI_SOURCE, kPoisonTag, comm_,
                          MPI_STATUS_IGNORE));
    relayed_ = true;
    segment_.poison(text);
    segment_.check_poison();
}

}  // namespace conclave::comm
