#include "runtime/comm/tcp_probe.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

namespace conclave::comm {
namespace {

class Socket {
  public:
    explicit Socket(int descriptor) : descriptor_(descriptor) {}
    ~Socket() {
        if (descriptor_ >= 0) close(descriptor_);
    }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    int get() const { return descriptor_; }

  private:
    int descriptor_;
};

/// So much memory is read at a time, from different places as long as there are some.
class Stream {
  public:
    explicit Stream(size_t bytes)
        : count_(bytes / sizeof(uint64_t)), memory_(kPlaces * count_, 1) {}
    void read() {
        place_ = (place_ + 1) % kPlaces;
        for (size_t i = 0; i < count_; i += 8) sum_ = sum_ + memory_[place_ * count_ + i];
    }

  private:
    static constexpr size_t kPlaces = 8;
    size_t count_, place_ = 0;
    std::vector<uint64_t> memory_;
    volatile uint64_t sum_ = 0;
};

bool pass(int from, int to, std::vector<char>& data) {
    if (send(from, data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL) !=
        static_cast<ssize_t>(data.size()))
        return false;
    return recv(to, data.data(), data.size(), MSG_WAITALL) == static_cast<ssize_t>(data.size());
}

}  // namespace

double tcp_message_seconds(size_t bytes, size_t streamed) {
    constexpr int kMessages = 200;
    const Socket listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Socket sender(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* name = reinterpret_cast<sockaddr*>(&address);
    socklen_t length = sizeof address;
    if (bind(listener.get(), name, length) != 0 || listen(listener.get(), 1) != 0 ||
        getsockname(listener.get(), name, &length) != 0 || connect(sender.get(), name, length) != 0)
        return 0;
    const Socket receiver(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const int on = 1;
    const timeval patience{1, 0};
    if (receiver.get() < 0 ||
        setsockopt(sender.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        setsockopt(receiver.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0)
        return 0;
    std::vector<char> data(std::min<size_t>(bytes, 64 << 10));
    std::vector<double> times;
    Stream stream(std::min<size_t>(streamed, 32 << 20));
    for (int i = 0; i < kMessages; ++i) {
        stream.read();
        const auto begin = std::chrono::steady_clock::now();
        if (!pass(sender.get(), receiver.get(), data)) return 0;
        times.push_back(
            std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    std::nth_element(times.begin(), times.begin() + kMessages / 2, times.end());
    return times[kMessages / 2];
}

}  // namespace conclave::comm
