#include "tcp_mesh.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

namespace {

/// What a connection begins with. Ranks run the same program on machines of one kind, so structs
/// travel as they are.
struct Hello {
    uint64_t magic;
    int32_t rank;
    int32_t status;  // 0: an ordinary connection; else this rank has failed with it
    uint32_t text_bytes;
    uint32_t unused;
};
constexpr uint64_t kMagic = 0x6b636f732d6e6f63;
constexpr uint32_t kMaxText = 4096;
constexpr std::chrono::seconds kConnectPatience{60};
// How long a rank listens for the reason after a peer's connection has ended.
constexpr int kReasonPatienceMs = 1000;

void no_delay(int fd) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

/// For what is sent and received whole, at once.
void set_timeout(int fd, int ms) {
    const timeval time{ms / 1000, ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

bool send_all(int fd, const void* data, size_t bytes) {
    const char* at = static_cast<const char*>(data);
    while (bytes > 0) {
        const ssize_t n = send(fd, at, bytes, MSG_NOSIGNAL);  // no SIGPIPE where the peer is gone
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        bytes -= static_cast<size_t>(n);
    }
    return true;
}

bool receive_all(int fd, void* data, size_t bytes) {
    char* at = static_cast<char*>(data);
    while (bytes > 0) {
        const ssize_t n = recv(fd, at, bytes, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        bytes -= static_cast<size_t>(n);
    }
    return true;
}

struct Addresses {
    addrinfo* first = nullptr;
    Addresses(const std::string& host, const std::string& port) {
        addrinfo hints{};
        hints.ai_socktype = SOCK_STREAM;
        if (const int code = getaddrinfo(host.c_str(), port.c_str(), &hints, &first); code != 0)
            throw std::runtime_error(host + ":" + port + ": " + gai_strerror(code));
    }
    ~Addresses() { freeaddrinfo(first); }
    Addresses(const Addresses&) = delete;
    Addresses& operator=(const Addresses&) = delete;
};

/// A connection to the address, or -1.
int try_connect(const std::string& host, const std::string& port) {
    const Addresses addresses(host, port);
    for (const addrinfo* a = addresses.first; a != nullptr; a = a->ai_next) {
        const int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0) continue;
        set_timeout(fd, 2000);
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) return fd;
        close(fd);
    }
    return -1;
}

}  // namespace

TcpMesh::TcpMesh(int rank, const std::vector<std::string>& peers) : rank_(rank) {
    for (const std::string& address : peers) {
        const size_t colon = address.rfind(':');
        if (colon == std::string::npos) throw std::runtime_error(address + ": not HOST:PORT");
        peers_.emplace_back();
        peers_.back().host = address.substr(0, colon);
        peers_.back().port = address.substr(colon + 1);
    }
    if (rank < 0 || rank >= size()) throw std::runtime_error("the rank is not one of the peers");
    listen();
    for (int r = 0; r < rank_; ++r) connect_to(r);
    accept_peers(size() - 1 - rank_);
    for (const Peer& peer : peers_)
        if (peer.fd >= 0) {
            no_delay(peer.fd);
            set_timeout(peer.fd, 0);
            fcntl(peer.fd, F_SETFL, fcntl(peer.fd, F_GETFL) | O_NONBLOCK);
        }
}

TcpMesh::~TcpMesh() {
    for (const Peer& peer : peers_)
        if (peer.fd >= 0) close(peer.fd);
    if (listener_ >= 0) close(listener_);
}

void TcpMesh::listen() {
    const Peer& own = peers_[static_cast<size_t>(rank_)];
    const Addresses addresses(own.host, own.port);
    const addrinfo* a = addresses.first;
    listener_ = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (listener_ < 0 || bind(listener_, a->ai_addr, a->ai_addrlen) != 0 ||
        ::listen(listener_, 128) != 0)
        throw std::runtime_error(own.host + ":" + own.port + ": " + std::strerror(errno));
}

void TcpMesh::connect_to(int peer) {
    Peer& p = peers_[static_cast<size_t>(peer)];
    const auto begun = std::chrono::steady_clock::now();
    while ((p.fd = try_connect(p.host, p.port)) < 0) {
        if (std::chrono::steady_clock::now() - begun > kConnectPatience)
            throw std::runtime_error("rank " + std::to_string(peer) + " does not answer at " +
                                     p.host + ":" + p.port);
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    const Hello hello{kMagic, rank_, 0, 0, 0};
    if (!send_all(p.fd, &hello, sizeof hello))
        throw std::runtime_error("rank " + std::to_string(peer) + " closed its connection");
}

void TcpMesh::accept_peers(int missing) {
    const auto begun = std::chrono::steady_clock::now();
    while (missing > 0) {
        int rank = -1;
        const int fd = accept_hello(&rank, 100);
        if (status_ != 0) throw std::runtime_error(text_);
        if (fd >= 0 && rank > rank_ && rank < size() && peers_[static_cast<size_t>(rank)].fd < 0) {
            peers_[static_cast<size_t>(rank)].fd = fd;
            --missing;
        } else if (fd >= 0) {
            close(fd);
        }
        if (std::chrono::steady_clock::now() - begun > kConnectPatience)
            throw std::runtime_error(std::to_string(missing) + " ranks have not come");
    }
}

/// Waits so long for a connection; it, or -1. One that brings a failure is taken note of and
/// closed; strangers are turned away.
int TcpMesh::accept_hello(int* rank, int wait_ms) {
    pollfd waiting{listener_, POLLIN, 0};
    if (poll(&waiting, 1, wait_ms) <= 0) return -1;
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return -1;
    set_timeout(fd, 2000);
    Hello hello{};
    std::string text;
    bool known = receive_all(fd, &hello, sizeof hello) && hello.magic == kMagic &&
                 hello.text_bytes <= kMaxText;
    if (known && hello.status != 0) {
        text.resize(hello.text_bytes);
        if (receive_all(fd, text.data(), text.size()) && status_ == 0) {
            fail(hello.status, "rank " + std::to_string(hello.rank) + ": " + text);
            told_ = true;
        }
        known = false;
    }
    if (known) {
        *rank = hello.rank;
        return fd;
    }
    close(fd);
    return -1;
}

bool TcpMesh::hear_abort(int wait_ms) {
    int rank = -1;
    if (const int fd = accept_hello(&rank, wait_ms); fd >= 0) close(fd);
    return status_ != 0;
}

int32_t TcpMesh::fail(int32_t status, const std::string& text) {
    if (status_ == 0) {
        status_ = status;
        text_ = text;
    }
    return status_;
}

int32_t TcpMesh::gone(int peer) {
    hear_abort(kReasonPatienceMs);  // it may have said why
    return fail(kGone, "rank " + std::to_string(peer) + " closed its connection");
}

void TcpMesh::abort(int32_t status, const std::string& text) {
    fail(status, text);
    if (told_) return;
    told_ = true;
    const std::string words = text.substr(0, kMaxText);
    const Hello hello{kMagic, rank_, status, static_cast<uint32_t>(words.size()), 0};
    for (int r = 0; r < size(); ++r) {
        if (r == rank_) continue;
        const Peer& peer = peers_[static_cast<size_t>(r)];
        try {
            const int fd = try_connect(peer.host, peer.port);
            if (fd < 0) continue;  // it is gone already
            if (send_all(fd, &hello, sizeof hello)) send_all(fd, words.data(), words.size());
            close(fd);
        } catch (const std::exception&) {  // its name is no longer known
        }
    }
}

void TcpMesh::expect(int peer, const void* send, size_t send_bytes, void* recv, size_t recv_bytes) {
    Peer& p = peers_[static_cast<size_t>(peer)];
    constexpr size_t kNothing = 0;
    p.sent = p.received = 0;
    p.head_out[0] = exchanges_;
    p.head_out[1] = send_bytes;
    p.data_out = static_cast<const char*>(send);
    p.data_in = static_cast<char*>(recv);
    // A null pointer: nothing is sent, or received, not even a head.
    p.to_send = send != nullptr ? sizeof p.head_out + send_bytes : kNothing;
    p.to_receive = recv != nullptr ? sizeof p.head_in + recv_bytes : kNothing;
}

/// Sends and receives what expect() has been told, all peers at once.
int32_t TcpMesh::exchange() {
    std::vector<pollfd> waiting;
    std::vector<int> ranks;
    for (;;) {
        waiting.assign(1, {listener_, POLLIN, 0});
        ranks.assign(1, rank_);
        for (int r = 0; r < size(); ++r) {
            const Peer& p = peers_[static_cast<size_t>(r)];
            const int events =
                (p.sent < p.to_send ? POLLOUT : 0) | (p.received < p.to_receive ? POLLIN : 0);
            if (r == rank_ || events == 0) continue;
            waiting.push_back({p.fd, static_cast<short>(events), 0});
            ranks.push_back(r);
        }
        const bool done = waiting.size() == 1;
        if (poll(waiting.data(), waiting.size(), done ? 0 : -1) < 0 && errno != EINTR)
            return fail(kGone, std::string("poll: ") + std::strerror(errno));
        if ((waiting[0].revents & POLLIN) != 0 && hear_abort(0)) return status_;
        if (done) return 0;
        for (size_t i = 1; i < waiting.size(); ++i) {
            const short ready = waiting[i].revents;
            int32_t status = 0;
            if ((ready & (POLLIN | POLLHUP | POLLERR)) != 0) status = receive_some(ranks[i]);
            if (status == 0 && (ready & (POLLOUT | POLLERR)) != 0) status = send_some(ranks[i]);
            if (status != 0) return status;
        }
    }
}

int32_t TcpMesh::send_some(int peer) {
    Peer& p = peers_[static_cast<size_t>(peer)];
    while (p.sent < p.to_send) {
        const size_t head = sizeof p.head_out;
        const char* from = p.sent < head ? reinterpret_cast<const char*>(p.head_out) + p.sent
                                         : p.data_out + (p.sent - head);
        const size_t bytes = p.sent < head ? head - p.sent : p.to_send - p.sent;
        const ssize_t n = send(p.fd, from, bytes, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
        if (n < 0) return gone(peer);
        p.sent += static_cast<size_t>(n);
    }
    return 0;
}

int32_t TcpMesh::receive_some(int peer) {
    Peer& p = peers_[static_cast<size_t>(peer)];
    while (p.received < p.to_receive) {
        const size_t head = sizeof p.head_in;
        char* to = p.received < head ? reinterpret_cast<char*>(p.head_in) + p.received
                                     : p.data_in + (p.received - head);
        const size_t bytes = p.received < head ? head - p.received : p.to_receive - p.received;
        const ssize_t n = recv(p.fd, to, bytes, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
        if (n <= 0) return gone(peer);
        p.received += static_cast<size_t>(n);
        if (p.received == head &&
            (p.head_in[0] != exchanges_ || p.head_in[1] != p.to_receive - head))
            return fail(kOutOfStep, "rank " + std::to_string(peer) + " is in another collective");
    }
    return 0;
}

int32_t TcpMesh::all_gather(const void* send, void* recv, const size_t* bytes) {
    if (status_ != 0) return status_;
    ++exchanges_;
    static const char kNothing = 0;  // 0 bytes may come with null pointers
    static char nowhere = 0;
    char* to = static_cast<char*>(recv);
    for (int r = 0; r < size(); ++r) {
        const size_t own = bytes[rank_], its = bytes[r];
        if (r != rank_)
            expect(r, own > 0 ? send : &kNothing, own, its > 0 ? to : &nowhere, its);
        else if (own > 0 && to != send)
            std::memmove(to, send, own);
        to += its;
    }
    return exchange();
}

int32_t TcpMesh::all_reduce(float* data, size_t count, bool maximum) {
    terms_.resize(count * peers_.size());
    const std::vector<size_t> bytes(peers_.size(), count * sizeof(float));
    if (const int32_t status = all_gather(data, terms_.data(), bytes.data()); status != 0)
        return status;
    for (size_t i = 0; i < count; ++i) {
        float all = terms_[i];
        for (size_t r = 1; r < peers_.size(); ++r) {
            const float term = terms_[r * count + i];
            if (maximum)
                all = all > term || all != all ? all : term;  // a NaN wins
            else
                all += term;
        }
        data[i] = all;
    }
    return 0;
}

int32_t TcpMesh::broadcast(void* data, size_t bytes, int root) {
    if (status_ != 0) return status_;
    ++exchanges_;
    char nothing = 0;
    void* const at = bytes > 0 ? data : &nothing;
    for (int r = 0; r < size(); ++r)
        expect(r, rank_ == root ? at : nullptr, bytes, r == root ? at : nullptr, bytes);
    return exchange();
}

int32_t TcpMesh::barrier() {
    const std::vector<size_t> bytes(peers_.size(), 0);
    return all_gather(nullptr, nullptr, bytes.data());
}
