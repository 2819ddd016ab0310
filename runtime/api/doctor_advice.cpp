// Facts to advice: each function looks at one matter and speaks only where it is so.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <map>
#include <set>

#include "runtime/api/conclave_doctor.hpp"

namespace conclave {
namespace {

using Advice = std::vector<DoctorAdvice>;

// Shared memory that a host's ranks map: conclave's segments, at most 8 MiB for each of a few
// communicators, and what Open MPI keeps for each rank.
constexpr uint64_t kShmBase = uint64_t{32} << 20, kShmEachRank = uint64_t{8} << 20;
// Between hosts: what 10 Gbit/s give, and what two switches and TCP take.
constexpr double kLinkBytes = 1.0e9, kLinkMicroseconds = 100;
// A rank or a link this far behind the best of its kind has a reason of its own.
constexpr double kBehind = 0.6;

struct Host {
    std::string name;
    std::vector<const DoctorRank*> ranks;

    std::set<int> cpus() const {  ///< that any of its ranks may use
        std::set<int> all;
        for (const DoctorRank* r : ranks) all.insert(r->cpus.begin(), r->cpus.end());
        return all;
    }
    int free_to_use() const {
        int most = static_cast<int>(cpus().size());
        for (const DoctorRank* r : ranks) most = std::max(most, r->host_cpus);
        return most;
    }
    bool overlap() const {  ///< two of its ranks share a CPU
        size_t sum = 0;
        for (const DoctorRank* r : ranks) sum += r->cpus.size();
        return sum > cpus().size();
    }
    int threads() const {
        int sum = 0;
        for (const DoctorRank* r : ranks) sum += r->threads;
        return sum;
    }
    int count() const { return static_cast<int>(ranks.size()); }
};

std::vector<Host> hosts_of(const DoctorReport& report) {
    std::vector<Host> hosts;
    for (const DoctorRank& r : report.ranks) {
        auto at = std::find_if(hosts.begin(), hosts.end(),
                               [&](const Host& h) { return h.name == r.host; });
        if (at == hosts.end()) at = hosts.insert(hosts.end(), {r.host, {}});
        at->ranks.push_back(&r);
    }
    return hosts;
}

/// "rank 3", "ranks 1, 2 and 7"
std::string named(const std::vector<int>& ranks) {
    std::string text = ranks.size() == 1 ? "rank " : "ranks ";
    for (size_t i = 0; i < ranks.size(); ++i)
        text += (i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ") + std::to_string(ranks[i]);
    return text;
}

std::string mpirun_with(const DoctorReport& report, const std::string& flags) {
    return fmt::format("mpirun -n {} {} conclave ...", report.ranks.size(), flags);
}

/// Binding that divides a host's cores among its ranks.
std::string bind_evenly(const DoctorReport& report, const Host& host) {
    const int cores = host.free_to_use() / std::max(1, host.ranks[0]->threads_per_core);
    return mpirun_with(report, fmt::format("--map-by ppr:{}:node:PE={} --bind-to core",
                                           host.count(), std::max(1, cores / host.count())));
}

void about_cpus(const DoctorReport& report, const Host& host, Advice& out) {
    const int used = static_cast<int>(host.cpus().size()), most = host.free_to_use();
    const bool mpi = report.backend == "mpi";
    if (host.count() > most) {
        out.push_back({"too many ranks",
                       fmt::format("host {} has {} CPUs for {} ranks, which take turns: every "
                                   "exchange waits for the scheduler",
                                   host.name, most, host.count()),
                       mpi ? fmt::format("give the host {} ranks at most: slots={} in the hostfile",
                                         most, most)
                           : fmt::format("--local-ranks {}", most)});
        return;
    }
    if (host.threads() > used)
        out.push_back({"too many threads",
                       fmt::format("the ranks of host {} run {} threads on {} CPUs", host.name,
                                   host.threads(), used),
                       fmt::format("--threads {}, or leave --threads and CONCLAVE_THREADS out",
                                   std::max(1, used / host.count()))});
    if (!mpi) return;
    if (used < most && host.overlap())
        out.push_back({"binding",
                       fmt::format("ranks of host {} share CPUs while {} of its {} are used by "
                                   "none",
                                   host.name, most - used, most),
                       bind_evenly(report, host)});
    else if (used < most)
        out.push_back({"binding",
                       fmt::format("host {}: {} of {} CPUs are used by no rank, because mpirun "
                                   "bound each to a part",
                                   host.name, most - used, most),
                       host.count() == 1 ? mpirun_with(report, "--bind-to none")
                                         : bind_evenly(report, host)});
    else if (host.overlap())
        out.push_back({"binding",
                       fmt::format("the {} ranks of host {} are not bound: their threads may meet "
                                   "on a core, and leave the memory they wrote",
                                   host.count(), host.name),
                       bind_evenly(report, host)});
}

void about_numa(const DoctorReport& report, const Host& host, Advice& out) {
    std::vector<int> crossing;
    std::set<int> nodes;
    for (const DoctorRank* r : host.ranks) {
        nodes.insert(r->numa_nodes.begin(), r->numa_nodes.end());
        if (r->numa_nodes.size() > 1 && r->threads > 1) crossing.push_back(r->rank);
    }
    if (crossing.empty()) return;
    // More ranks than nodes cannot be bound to one each; binding to cores (above) parts them.
    if (host.count() > static_cast<int>(nodes.size())) return;
    const std::string with =
        fmt::format("mpirun {}--map-by ppr:1:numa --bind-to numa conclave ...",
                    hosts_of(report).size() == 1 ? fmt::format("-n {} ", nodes.size()) : "");
    out.push_back({"NUMA",
                   fmt::format("threads of {} on host {} work on {} NUMA nodes: what they exchange "
                               "crosses between them",
                               named(crossing), host.name, nodes.size()),
                   "one rank for each node: " + with});
}

void about_memory(const Host& host, Advice& out) {
    const DoctorRank& first = *host.ranks[0];
    std::vector<int> small;
    for (const DoctorRank* r : host.ranks)
        if (r->small_pages) small.push_back(r->rank);
    if (!small.empty())
        out.push_back({"huge pages",
                       fmt::format("host {}: memory of {} is in 4 KiB pages{}; weights are read "
                                   "faster in pages of 2 MiB",
                                   host.name, named(small),
                                   first.transparent_huge_pages.empty()
                                       ? ""
                                       : " (transparent_hugepage is \"" +
                                             first.transparent_huge_pages + "\")"),
                       "as root on that host: echo madvise > "
                       "/sys/kernel/mm/transparent_hugepage/enabled, or reserve a pool at least as "
                       "large as its share of the weights: sysctl vm.nr_hugepages=N (2 MiB each)"});
    const uint64_t needed = kShmBase + kShmEachRank * static_cast<uint64_t>(host.count());
    if (first.shm_free < needed && host.count() > 1)
        out.push_back({"shared memory",
                       fmt::format("host {}: /dev/shm has {} MiB left; {} ranks may want {}",
                                   host.name, first.shm_free >> 20, host.count(), needed >> 20),
                       "mount -o remount,size=1G /dev/shm; in a container: docker run "
                       "--shm-size=1g, or an emptyDir of medium Memory at /dev/shm"});
}

void about_isa(const DoctorReport& report, Advice& out) {
    std::map<std::string, std::vector<int>> beyond, off;
    std::vector<int> least;
    for (const DoctorRank& r : report.ranks) {
        if (r.beyond.empty())
            least.push_back(r.rank);
        else
            beyond[r.beyond].push_back(r.rank);
        if (!r.switched_off.empty()) off[r.switched_off].push_back(r.rank);
    }
    for (const auto& [what, ranks] : beyond)
        out.push_back({"instruction sets",
                       fmt::format("{} could use {}, but {} cannot: all use {}, the best that all "
                                   "have",
                                   named(ranks), what, least.empty() ? "others" : named(least),
                                   report.ranks[0].isa),
                       "leave the hosts of the older CPUs out, if the others hold the model"});
    for (const auto& [what, ranks] : off)
        out.push_back({"instruction sets",
                       fmt::format("CONCLAVE_ISA keeps {} from {}", named(ranks), what),
                       "unset CONCLAVE_ISA"});
}

void about_mpi(const DoctorReport& report, const std::vector<Host>& hosts, Advice& out) {
    std::set<std::string> libraries;
    std::vector<int> single;
    int launched = 0;
    for (const DoctorRank& r : report.ranks) {
        if (!r.library.empty()) libraries.insert(r.library);
        if (r.library.find("MPI_THREAD_SINGLE") != std::string::npos) single.push_back(r.rank);
        launched = std::max(launched, r.launched);
    }
    const int ranks = static_cast<int>(report.ranks.size());
    if (report.backend == "mpi" && launched > ranks && ranks == 1)
        out.push_back(
            {"launcher",
             fmt::format("the launcher started {} processes, but each is alone: it is not "
                         "of the MPI that conclave was built with",
                         launched),
             "use that MPI's own mpirun, or srun --mpi=pmix"});
    if (libraries.size() > 1)
        out.push_back(
            {"MPI",
             "ranks run different MPI libraries: " + fmt::format("{}", fmt::join(libraries, "; ")),
             "install the same MPI on all hosts"});
    if (!single.empty())
        out.push_back(
            {"MPI",
             "MPI was initialised for programs without threads (MPI_THREAD_SINGLE), and " +
                 named(single) + " run" + (single.size() == 1 ? "s" : "") + " several",
             "MPI_Init_thread with MPI_THREAD_FUNNELED or more"});
    if (report.backend == "local" && ranks > 1)
        out.push_back({"launcher",
                       "these ranks are threads of one process, which is for trying layouts: they "
                       "are bound to nothing of their own",
                       fmt::format("mpirun -n {} conclave ...", ranks)});
    if (hosts.size() > 1 && report.deadline_seconds <= 0)
        out.push_back({"deadline",
                       "--deadline 0: when a host is lost, the others wait for it for ever",
                       "--deadline 60"});
    const bool open_mpi = report.backend == "mpi" && !libraries.empty() &&
                          libraries.begin()->rfind("Open MPI 4", 0) == 0;
    if (hosts.size() > 1 && open_mpi && !report.ranks[0].keepalive)
        out.push_back({"lost hosts",
                       "Open MPI's own daemons notice a host that falls silent only after 8 "
                       "minutes; until then, only conclave's --deadline does",
                       "mpirun --mca oob_tcp_keepalive_time 5 --mca oob_tcp_keepalive_intvl 2 "
                       "--mca oob_tcp_keepalive_probes 5 ..."});
}

/// "eth0 10.1.2.3/16" -> "10.1.0.0/16"
std::string network_of(const std::string& interface) {
    unsigned a = 0, b = 0, c = 0, d = 0, bits = 0;
    const size_t space = interface.find(' ');
    if (space == std::string::npos ||
        std::sscanf(interface.c_str() + space, " %u.%u.%u.%u/%u", &a, &b, &c, &d, &bits) != 5 ||
        bits > 32)
        return {};
    const uint64_t mask = bits == 0 ? 0 : ~uint64_t{0} << (32 - bits);
    const uint64_t address = ((a << 24) | (b << 16) | (c << 8) | d) & mask;
    return fmt::format("{}.{}.{}.{}/{}", address >> 24 & 255, address >> 16 & 255,
                       address >> 8 & 255, address & 255, bits);
}

std::string address_of(const std::string& interface) {
    return interface.substr(interface.find(' ') + 1);
}

/// Networks on which each host has an address of its own, unlike those of containers and virtual
/// machines, which look the same everywhere.
std::vector<std::string> shared_networks(const std::vector<Host>& hosts) {
    std::map<std::string, std::set<std::string>> addresses;
    for (const Host& host : hosts) {
        std::set<std::string> own;
        for (const std::string& i : host.ranks[0]->networks)
            if (own.insert(network_of(i)).second) addresses[network_of(i)].insert(address_of(i));
    }
    std::vector<std::string> shared;
    for (const auto& [network, own] : addresses)
        if (!network.empty() && own.size() == hosts.size()) shared.push_back(network);
    return shared;
}

void about_networks(const DoctorReport& report, const std::vector<Host>& hosts, Advice& out) {
    if (hosts.size() < 2 || report.backend != "mpi") return;
    std::string several;
    for (const Host& host : hosts) {
        const DoctorRank& r = *host.ranks[0];
        if (r.infiniband || !r.tcp_networks.empty()) return;
        if (r.networks.size() > 1 && several.empty())
            several = fmt::format("host {} has several networks ({})", host.name,
                                  fmt::join(r.networks, ", "));
    }
    if (several.empty()) return;
    const std::vector<std::string> shared = shared_networks(hosts);
    if (shared.empty()) return;
    const std::string others =
        shared.size() == 1 ? "" : fmt::format(" (or another of {})", fmt::join(shared, ", "));
    out.push_back({"networks",
                   several + ": Open MPI tries all of them, and may stripe messages over slow ones "
                             "or hang on those that lead nowhere",
                   fmt::format("mpirun --mca btl_tcp_if_include {0} --mca oob_tcp_if_include {0} "
                               "...{1}",
                               shared[0], others)});
}

void about_links(const DoctorReport& report, Advice& out) {
    struct Link {
        double latency = 0, bandwidth = 0;  ///< the best of the pairs between two hosts
    };
    std::map<std::pair<std::string, std::string>, Link> links;
    double best = 0;
    for (const DoctorPair& p : report.pairs) {
        const std::string &a = report.ranks[p.a].host, &b = report.ranks[p.b].host;
        if (a == b) continue;
        Link& link = links[std::minmax(a, b)];
        if (link.latency == 0 || p.latency_us < link.latency) link.latency = p.latency_us;
        link.bandwidth = std::max(link.bandwidth, p.bandwidth);
        best = std::max(best, p.bandwidth);
    }
    for (const auto& [hosts, link] : links) {
        const double gbit = link.bandwidth * 8e-9;
        const std::string between = "between hosts " + hosts.first + " and " + hosts.second;
        if (link.bandwidth < kBehind * best)
            out.push_back({"links",
                           fmt::format("{:.2f} Gbit/s {}, {:.2f} between others: every exchange "
                                       "waits for the slowest",
                                       gbit, between, best * 8e-9),
                           "look at cable, port and negotiated speed there: ethtool INTERFACE"});
        else if (link.bandwidth < kLinkBytes)
            out.push_back({"links",
                           fmt::format("{:.2f} Gbit/s {}: prompts and large batches wait for it",
                                       gbit, between),
                           "a network of 10 Gbit/s or more; where the hosts have one, name it: "
                           "mpirun --mca btl_tcp_if_include NETWORK/BITS ..."});
        if (link.latency > kLinkMicroseconds)
            out.push_back({"links",
                           fmt::format("{:.0f} us {}: a token pays about twice that in each layer, "
                                       "{:.1f} ms with 48 layers",
                                       link.latency, between, link.latency * 2 * 48 / 1000),
                           "hosts on one switch; fewer hosts with more ranks each"});
    }
}

void about_reading(const DoctorReport& report, Advice& out) {
    std::map<std::string, double> rates;
    for (const DoctorRank& r : report.ranks) rates[r.host] += r.read_together;
    double best = 0;
    for (const auto& [host, rate] : rates) best = std::max(best, rate);
    for (const auto& [host, rate] : rates)
        if (rate > 0 && rate < kBehind * best)
            out.push_back({"slow host",
                           fmt::format("host {} reads memory at {:.1f} GB/s, another at {:.1f}: "
                                       "each step waits for the slowest",
                                       host, rate * 1e-9, best * 1e-9),
                           "see what else runs there (top), and whether all memory channels are "
                           "filled (dmidecode -t memory); else leave it out"});
}

}  // namespace

std::vector<DoctorAdvice> advise(const DoctorReport& report) {
    Advice out;
    if (report.ranks.empty()) return out;
    const std::vector<Host> hosts = hosts_of(report);
    for (const Host& host : hosts) {
        about_cpus(report, host, out);
        about_numa(report, host, out);
        about_memory(host, out);
    }
    about_isa(report, out);
    about_mpi(report, hosts, out);
    about_networks(report, hosts, out);
    about_links(report, out);
    about_reading(report, out);
    return out;
}

}  // namespace conclave
