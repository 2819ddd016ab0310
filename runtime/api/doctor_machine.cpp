#include "runtime/api/doctor_machine.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <bitset>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <memory>
#include <sstream>

#include "runtime/exec/topology.h"

namespace conclave {
namespace {

std::string first_line(const std::string& path) {
    std::ifstream in(path);
    std::string line;
    std::getline(in, line);
    return line;
}

/// A number at the beginning of the file; -1 where there is none ("max").
int64_t number_in(const std::string& path) {
    std::istringstream text(first_line(path));
    int64_t value = -1;
    return text >> value ? value : -1;
}

std::string environment(const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? "" : value;
}

/// "MemTotal:       24513924 kB"
void read_meminfo(DoctorRank& rank) {
    std::ifstream in("/proc/meminfo");
    std::string name, unit;
    for (uint64_t kib = 0; in >> name >> kib; std::getline(in, unit)) {
        if (name == "MemTotal:") rank.memory = kib << 10;
        if (name == "MemAvailable:") rank.memory_free = kib << 10;
    }
}

/// The least limit on the way from this process's control group to the root, of either version.
void read_memory_limit(DoctorRank& rank) {
    int64_t least = std::numeric_limits<int64_t>::max();
    const auto look = [&](const std::string& root, std::string group, const char* file) {
        for (;;) {
            const int64_t limit = number_in(root + group + "/" + file);
            if (limit >= 0) least = std::min(least, limit);
            if (group.empty()) return;
            group.erase(group.find_last_of('/'));
        }
    };
    std::ifstream in("/proc/self/cgroup");
    for (std::string line; std::getline(in, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        std::string group = line.substr(second + 1);
        if (group.empty() || group[0] != '/') continue;
        if (group == "/") group.clear();
        if (controllers.empty()) look("/sys/fs/cgroup", group, "memory.max");
        if (controllers == "memory") look("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
    }
    // Version 1 says "none" by a huge number.
    if (static_cast<uint64_t>(least) < rank.memory)
        rank.memory_limit = static_cast<uint64_t>(least);
}

void read_huge_pages(DoctorRank& rank) {
    const std::string pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
    rank.huge_pages = std::max<int64_t>(0, number_in(pool + "nr_hugepages"));
    rank.huge_pages_free = std::max<int64_t>(0, number_in(pool + "free_hugepages"));
    const std::string text = first_line("/sys/kernel/mm/transparent_hugepage/enabled");
    const size_t begin = text.find('['), end = text.find(']');
    if (begin < end && end != std::string::npos)
        rank.transparent_huge_pages = text.substr(begin + 1, end - begin - 1);
}

void read_networks(DoctorRank& rank) {
    ifaddrs* list = nullptr;
    if (getifaddrs(&list) != 0) return;
    const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, freeifaddrs);
    for (const ifaddrs* i = list; i != nullptr; i = i->ifa_next) {
        constexpr unsigned kUp = IFF_UP | IFF_RUNNING;
        if (i->ifa_addr == nullptr || i->ifa_netmask == nullptr ||
            i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & kUp) != kUp ||
            (i->ifa_flags & IFF_LOOPBACK) != 0)
            continue;
        char text[INET_ADDRSTRLEN] = {};
        const auto* address = reinterpret_cast<const sockaddr_in*>(i->ifa_addr);
        const auto* mask = reinterpret_cast<const sockaddr_in*>(i->ifa_netmask);
        inet_ntop(AF_INET, &address->sin_addr, text, sizeof text);
        rank.networks.push_back(std::string(i->ifa_name) + " " + text + "/" +
                                std::to_string(std::bitset<32>(mask->sin_addr.s_addr).count()));
    }
}

void read_launcher(DoctorRank& rank) {
    const std::string prefix = "OMPI_MCA_";
    for (const char* name : {"btl_tcp_if_include", "btl_tcp_if_exclude"})
        if (const std::string value = environment((prefix + name).c_str()); !value.empty())
            rank.tcp_networks = std::string(name) + " " + value;
    rank.keepalive = !environment("OMPI_MCA_oob_tcp_keepalive_time").empty();
    rank.infiniband = access("/sys/class/infiniband", F_OK) == 0;
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
        rank.launched = std::max(rank.launched, std::atoi(environment(name).c_str()));
}

}  // namespace

void look_at_machine(DoctorRank& rank) {
    rank.pid = getpid();
    const std::string siblings = first_line(
        "/sys/devices/system/cpu/cpu" + std::to_string(rank.cpus.empty() ? 0 : rank.cpus.front()) +
        "/topology/thread_siblings_list");
    try {
        rank.threads_per_core = std::max<int>(1, exec::parse_cpulist(siblings).size());
    } catch (const Error&) {  // written in a way of its own: one thread each
    }
    read_meminfo(rank);
    read_memory_limit(rank);
    read_huge_pages(rank);
    read_networks(rank);
    read_launcher(rank);
    struct statvfs shm = {};
    if (statvfs("/dev/shm", &shm) == 0) {
        rank.shm = uint64_t{shm.f_blocks} * shm.f_frsize;
        rank.shm_free = uint64_t{shm.f_bavail} * shm.f_frsize;
    }
}

}  // namespace conclave
