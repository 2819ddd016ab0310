#include "runtime/exec/topology.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <memory>
#include <numeric>
#include <set>
#include <thread>

#include "runtime/base/error.h"
#include "runtime/exec/cpu_mask.h"

namespace conclave::exec {
namespace {

constexpr int kMaxCpus = 8192;  // the largest NR_CPUS of a stock Linux kernel

/// CPUs left when a thread asks for all of them: the kernel grants what the cpuset of the container
/// or batch job allows. Asked for by a thread of its own, so that no other thread's mask changes.
int grantable_cpus() {
    int granted = 0;
    std::thread([&] {
        std::vector<int> all(kMaxCpus);
        std::iota(all.begin(), all.end(), 0);
        if (CpuMask(all).apply(0)) granted = static_cast<int>(CpuMask::of_thread(0).cpus().size());
    }).join();
    return granted;
}

/// Node numbers with a directory nodeN in `sysfs`, ascending.
std::vector<int> node_ids(const std::string& sysfs) {
    std::vector<int> ids;
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(sysfs.c_str()), closedir);
    if (!dir) return ids;
    while (const dirent* entry = readdir(dir.get())) {
        const std::string_view name = entry->d_name;
        if (name.substr(0, 4) != "node") continue;
        int id = 0;
        const auto [end, error] = std::from_chars(name.data() + 4, name.data() + name.size(), id);
        if (error == std::errc() && end == name.data() + name.size() && id >= 0) ids.push_back(id);
    }
    std::sort(ids.begin(), ids.end());
    return ids;
}

}  // namespace

std::vector<int> parse_cpulist(std::string_view text) {
    const std::string whole(text);
    const auto bad = [&] {
        return Error(ErrorCode::kBadContent, "not a list of CPUs")
            .expected("numbers and ranges such as 0-3,8")
            .found("\"" + whole + "\"");
    };
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
    std::set<int> cpus;
    const auto number = [&] {
        int value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || value < 0 || value >= kMaxCpus) throw bad();
        text.remove_prefix(static_cast<size_t>(end - text.data()));
        return value;
    };
    while (!text.empty()) {
        const int first = number();
        int last = first;
        if (!text.empty() && text.front() == '-') {
            text.remove_prefix(1);
            last = number();
        }
        if (last < first) throw bad();
        for (int c = first; c <= last; ++c) cpus.insert(c);
        if (text.empty()) break;
        if (text.front() != ',' || text.size() == 1) throw bad();
        text.remove_prefix(1);
    }
    return {cpus.begin(), cpus.end()};
}

std::vector<NumaNode> numa_nodes(const std::vector<int>& allowed, const std::string& sysfs) {
    std::set<int> unnamed(allowed.begin(), allowed.end());
    std::vector<NumaNode> nodes;
    for (const int id : node_ids(sysfs)) {
        std::ifstream in(sysfs + "/node" + std::to_string(id) + "/cpulist");
        const std::string text{std::istreambuf_iterator<char>(in), {}};
        NumaNode node{id, {}};
        try {
            for (const int c : parse_cpulist(text))
                if (unnamed.erase(c) != 0) node.cpus.push_back(c);
        } catch (const Error&) {
            continue;  // its CPUs count as named by no node
        }
        if (!node.cpus.empty()) nodes.push_back(std::move(node));
    }
    if (nodes.empty()) nodes.push_back({});
    nodes[0].cpus.insert(nodes[0].cpus.end(), unnamed.begin(), unnamed.end());
    std::sort(nodes[0].cpus.begin(), nodes[0].cpus.end());
    return nodes;
}

int Topology::cpus() const {
    size_t total = 0;
    for (const NumaNode& node : nodes) total += node.cpus.size();
    return static_cast<int>(total);
}

Topology Topology::for_local_rank(int local_rank) const {
    CONCLAVE_CHECK(local_rank >= 0);
    Topology t = *this;
    if (!nodes.empty())
        std::rotate(t.nodes.begin(), t.nodes.begin() + local_rank % static_cast<int>(nodes.size()),
                    t.nodes.end());
    return t;
}

Topology Topology::detect() {
    Topology t;
    std::vector<int> allowed = CpuMask::of_thread(0).cpus();
    if (allowed.empty()) {
        t.bind = false;
        for (int c = 0; c < std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)); ++c) allowed.push_back(c);
    }
    t.nodes = numa_nodes(allowed, "/sys/devices/system/node");
    t.host_cpus = std::max(t.cpus(), grantable_cpus());
    return t;
}

Topology Topology::pretend(int nodes, int cpus_per_node) {
    CONCLAVE_CHECK(nodes > 0 && cpus_per_node > 0);
    Topology t;
    t.bind = false;
    t.host_cpus = nodes * cpus_per_node;
    for (int n = 0; n < nodes; ++n) {
        t.nodes.push_back({n, {}});
        for (int c = 0; c < cpus_per_node; ++c) t.nodes[n].cpus.push_back(n * cpus_per_node + c);
    }
    return t;
}

RankCpus rank_cpus(const Topology& topology) {
    std::vector<int> cpus;
    for (const NumaNode& n : topology.nodes) cpus.insert(cpus.end(), n.cpus.begin(), n.cpus.end());
    std::sort(cpus.begin(), cpus.end());
    uint64_t hash = 0xcbf29ce484222325;  // FNV-1a over the numbers of the CPUs
    for (const int c : cpus) hash = (hash ^ static_cast<uint64_t>(c)) * 0x100000001b3;
    return {hash, topology.cpus()};
}

int default_threads(const std::vector<RankCpus>& local_ranks, int self) {
    CONCLAVE_CHECK(self >= 0 && self < static_cast<int>(local_ranks.size()));
    const RankCpus& mine = local_ranks[self];
    const auto sharers =
        std::count_if(local_ranks.begin(), local_ranks.end(),
                      [&](const RankCpus& r) { return r.mask_hash == mine.mask_hash; });
    return std::max(1, mine.cpus / static_cast<int>(sharers));
}

std::string binding_advice(const std::vector<RankCpus>& local_ranks, int self, int host_cpus) {
    const int ranks = static_cast<int>(local_ranks.size());
    const int given = default_threads(local_ranks, self), possible = host_cpus / ranks;
    if (given >= possible) return {};
    const auto count = [](int n, const char* what) {
        return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
    };
    return "bound to " + count(local_ranks[self].cpus, "CPU") + ", " + count(given, "thread") +
           " for this rank, where the host has " + std::to_string(possible) + " for each of its " +
           count(ranks, "rank") +
           ": Open MPI binds one or two ranks to one core each unless mpirun is given "
           "--bind-to none";
}

}  // namespace conclave::exec
