#include <sys/types.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "runtime/api/conclave_doctor.hpp"
#include "runtime/api/doctor_links.h"
#include "runtime/api/doctor_machine.h"
#include "runtime/base/log.h"
#include "runtime/engine/rank_setup.h"
#include "runtime/exec/arenas.h"
#include "runtime/exec/bandwidth.h"

namespace conclave {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(DoctorRank, rank, local_rank, host, pid, cpu_model, cpus,
                                   host_cpus, threads_per_core, numa_nodes, threads, isa, features,
                                   beyond, switched_off, library, pages, small_pages, huge_pages,
                                   huge_pages_free, transparent_huge_pages, read_alone,
                                   read_together, memory, memory_free, memory_limit, shm, shm_free,
                                   networks, tcp_networks, infiniband, keepalive, launched)

namespace {

constexpr size_t kMostProbeBytes = size_t{256} << 20, kLeastProbeBytes = size_t{16} << 20;
constexpr int kPasses = 3;
constexpr int kMostAlone = 16;  // ranks of a host that read one after the other

/// The sets' difference, as "avx512 avx512vnni".
std::string without(CpuFeatures a, CpuFeatures b) {
    const uint32_t rest = a.mask & ~b.mask;
    return rest == 0 ? std::string() : CpuFeatures{rest}.to_string();
}

DoctorRank look_at_rank(const comm::Communicator& comm, const engine::RankSetup& setup) {
    DoctorRank rank;
    rank.rank = comm.rank();
    rank.local_rank = comm.local_rank();
    rank.host = comm.host();
    rank.library = comm.library();
    rank.cpu_model = cpu_model_name();
    rank.threads = setup.threads;
    rank.host_cpus = setup.topology.host_cpus;
    for (const exec::NumaNode& node : setup.topology.nodes) {
        rank.numa_nodes.push_back(node.id);
        rank.cpus.insert(rank.cpus.end(), node.cpus.begin(), node.cpus.end());
    }
    std::sort(rank.cpus.begin(), rank.cpus.end());
    std::sort(rank.numa_nodes.begin(), rank.numa_nodes.end());
    const CpuFeatures own = cpu_from_environment();
    rank.isa = isa_name(engine::best_isa(setup.cpu));
    rank.features = own.to_string();
    rank.beyond = without(own, setup.cpu);
    rank.switched_off = without(detect_cpu(), own);
    look_at_machine(rank);
    return rank;
}

/// Collective. The memory that this rank reads, smaller where there is little.
size_t probe_bytes(comm::Communicator& comm, const DoctorRank& rank) {
    uint64_t free = rank.memory_free;
    if (rank.memory_limit > 0) free = std::min(free, rank.memory_limit);
    const uint64_t share = free / 4 / static_cast<uint64_t>(comm.local_size());
    float least = -static_cast<float>(
        std::clamp<uint64_t>(share >> 20, kLeastProbeBytes >> 20, kMostProbeBytes >> 20));
    comm.all_reduce_max(&least, 1);
    return static_cast<size_t>(-least) << 20;
}

/// Collective. Rank r's `value` for all r.
std::vector<double> gather(comm::Communicator& comm, double value) {
    std::vector<double> all(comm.size());
    const std::vector<size_t> bytes(comm.size(), sizeof value);
    comm.all_gather(&value, all.data(), bytes);
    return all;
}

/// Collective. Fills read rates and pages; bytes per second of all ranks together.
double measure_reading(comm::Communicator& comm, const engine::RankSetup& setup, DoctorRank& rank) {
    const size_t bytes = probe_bytes(comm, rank);
    std::unique_ptr<exec::Arenas> executor;
    exec::Slab slab;
    comm::together(comm, [&] {
        executor = std::make_unique<exec::Arenas>(setup.topology, setup.threads);
        slab = exec::Slab(bytes);
        exec::touch(*executor, slab);
    });
    rank.pages = exec::page_kind_name(slab.pages());
    rank.small_pages = slab.pages() == exec::PageKind::kSmall;
    const std::vector<double> turns = gather(comm, comm.local_rank());
    const int last = static_cast<int>(*std::max_element(turns.begin(), turns.end()));
    for (int turn = 0; turn <= std::min(last, kMostAlone - 1); ++turn) {
        comm.barrier();
        if (turn != comm.local_rank()) continue;
        for (int pass = 0; pass < kPasses; ++pass)
            rank.read_alone = std::max(
                rank.read_alone, static_cast<double>(bytes) / exec::read_once(*executor, slab));
    }
    double best = 0;
    for (int pass = 0; pass < kPasses; ++pass) {
        comm.barrier();
        const double seconds = exec::read_once(*executor, slab);
        const std::vector<double> all = gather(comm, seconds);
        const double rate =
            static_cast<double>(bytes) * comm.size() / *std::max_element(all.begin(), all.end());
        if (rate <= best) continue;
        best = rate;
        rank.read_together = static_cast<double>(bytes) / seconds;
    }
    return best;
}

/// Collective.
std::vector<DoctorRank> gather_ranks(comm::Communicator& comm, const DoctorRank& mine) {
    using nlohmann::json;
    const std::string text = json(mine).dump(-1, ' ', false, json::error_handler_t::replace);
    std::vector<size_t> bytes(comm.size());
    const std::vector<double> sizes = gather(comm, static_cast<double>(text.size()));
    std::transform(sizes.begin(), sizes.end(), bytes.begin(),
                   [](double size) { return static_cast<size_t>(size); });
    std::string all(std::accumulate(bytes.begin(), bytes.end(), size_t{0}), ' ');
    comm.all_gather(text.data(), all.data(), bytes);
    std::vector<DoctorRank> ranks;
    size_t at = 0;
    for (const size_t n : bytes) {
        ranks.push_back(json::parse(all.substr(at, n)).get<DoctorRank>());
        at += n;
    }
    return ranks;
}

/// Collective.
DoctorReport examine(const EngineOptions& options, comm::Communicator& comm) {
    const Log log(options.log);
    const auto say = [&](const std::string& what) {
        if (comm.rank() == 0) log.info("{}", what);
    };
    DoctorReport report;
    report.backend = comm.backend();
    report.deadline_seconds = options.deadline_seconds;

    comm.set_phase("doctor: reading memory");
    say("reading memory");
    const engine::RankSetup setup = engine::set_up_rank(comm, options);
    DoctorRank mine;
    comm::together(comm, [&] { mine = look_at_rank(comm, setup); });
    report.read_together = measure_reading(comm, setup, mine);
    report.ranks = gather_ranks(comm, mine);

    comm.set_phase("doctor: measuring links");
    std::vector<std::string> host_of;
    for (const DoctorRank& rank : report.ranks) host_of.push_back(rank.host);
    const PairPlan plan = plan_pairs(host_of);
    if (plan.pairs() > 0)
        say("measuring " + std::to_string(plan.pairs()) + (plan.pairs() == 1 ? " pair" : " pairs") +
            " of ranks");
    report.pairs = measure_pairs(comm, plan);
    report.pairs_left_out = plan.left_out;
    if (comm.rank() != 0) return {};
    report.advice = advise(report);
    return report;
}

}  // namespace

DoctorReport doctor(const EngineOptions& options, const Comm& handle) {
    comm::Communicator& comm = *handle.impl();
    comm.check_thread();
    comm.set_deadline(options.deadline_seconds);
    comm.set_abort(options.abort);
    try {
        DoctorReport report = examine(options, comm);
        comm.set_abort({});
        return report;
    } catch (const Error& e) {
        comm.set_abort({});
        comm.poison(e);  // it may have come from a pair's own communicator
        throw;
    }
}

}  // namespace conclave
