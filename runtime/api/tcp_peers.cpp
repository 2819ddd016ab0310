#include <ifaddrs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "runtime/api/conclave_mpi.hpp"
#include "runtime/comm/communicator.h"

namespace conclave {
namespace {

using Address = std::array<unsigned char, 16>;
constexpr size_t kAddresses = 16;  // of one host; more are not looked at
constexpr int kDescriptors = 4096;

/// What a rank tells the others.
struct Card {
    char name[96] = {};  // "rank 3 (host b)"
    uint32_t leads = 0, addresses = 0;
    Address address[kAddresses] = {};
};

bool address_of(const sockaddr* socket, Address& address) noexcept {
    constexpr unsigned char kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (socket->sa_family == AF_INET6) {
        std::memcpy(address.data(), &reinterpret_cast<const sockaddr_in6*>(socket)->sin6_addr, 16);
        return true;
    }
    if (socket->sa_family != AF_INET) return false;
    std::memcpy(address.data(), kMapped, 12);
    std::memcpy(address.data() + 12, &reinterpret_cast<const sockaddr_in*>(socket)->sin_addr, 4);
    return true;
}

Card own_card(const comm::Communicator& comm) {
    Card card;
    const std::string name = "rank " + std::to_string(comm.rank()) + " (host " + comm.host() + ")";
    name.copy(card.name, sizeof card.name - 1);
    card.leads = comm.local_rank() == 0;
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return card;
    for (const ifaddrs* i = list; i != nullptr && card.addresses < kAddresses; i = i->ifa_next)
        if (i->ifa_addr != nullptr && address_of(i->ifa_addr, card.address[card.addresses]))
            ++card.addresses;
    freeifaddrs(list);
    return card;
}

}  // namespace

TcpPeers::TcpPeers(const Comm& comm) {
    comm::Communicator& impl = *comm.impl();
    if (impl.hosts() == 1) return;
    const Card mine = own_card(impl);
    std::vector<Card> cards(static_cast<size_t>(impl.size()));
    impl.all_gather(&mine, cards.data(), std::vector<size_t>(cards.size(), sizeof(Card)));
    // Loopback, and bridges that have the same address everywhere, tell nobody apart.
    const auto hosts_with = [&](const Address& address) {
        return std::count_if(cards.begin(), cards.end(), [&](const Card& c) {
            const Address* end = c.address + c.addresses;
            return c.leads != 0 && std::find(c.address, end, address) != end;
        });
    };
    for (const Card& card : cards) {
        const bool here =
            std::equal(std::begin(card.address), std::end(card.address), mine.address);
        if (card.leads == 0 || here) continue;
        Host host{card.name, {}};
        std::copy_if(card.address, card.address + card.addresses,
                     std::back_inserter(host.addresses),
                     [&](const Address& a) { return hosts_with(a) == 1; });
        if (connected(host)) hosts_.push_back(std::move(host));
    }
}

bool TcpPeers::connected(const Host& host) noexcept {
    for (int descriptor = 0; descriptor < kDescriptors; ++descriptor) {
        sockaddr_storage peer;
        socklen_t length = sizeof peer;
        Address address;
        if (getpeername(descriptor, reinterpret_cast<sockaddr*>(&peer), &length) != 0 ||
            !address_of(reinterpret_cast<const sockaddr*>(&peer), address) ||
            std::find(host.addresses.begin(), host.addresses.end(), address) ==
                host.addresses.end())
            continue;
        tcp_info info{};
        length = sizeof info;
        if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 &&
            info.tcpi_state == TCP_ESTABLISHED)
            return true;
    }
    return false;
}

size_t TcpPeers::lost(char* text, size_t size) const noexcept {
    const int error = errno;  // a handler's caller may look at it
    size_t at = 0;
    const auto add = [&](const char* more, size_t bytes) {
        const size_t n = std::min(bytes, size - at);
        std::memcpy(text + at, more, n);
        at += n;
    };
    for (const Host& host : hosts_) {
        if (connected(host)) continue;
        if (at > 0) add(", ", 2);
        add(host.name.data(), host.name.size());
    }
    errno = error;
    return at;
}

}  // namespace conclave
