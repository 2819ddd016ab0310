#include "runtime/engine/rank_setup.h"

#include <vector>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/hash.h"

namespace conclave::engine {
namespace {

struct Introduction {
    uint64_t host = 0;
    exec::RankCpus cpus;
    uint32_t features = 0, padding = 0;
};

}  // namespace

Isa best_isa(CpuFeatures cpu) {
    for (int i = kIsaCount - 1; i > 0; --i)
        if (cpu.has(Isa(i))) return Isa(i);
    return Isa::kGeneric;
}

RankSetup set_up_rank(comm::Communicator& comm, const EngineOptions& options) {
    RankSetup setup;
    Introduction mine;
    comm::together(comm, [&] {
        if (options.threads < 0)
            throw Error(ErrorCode::kUsage, "--threads is negative")
                .found(std::to_string(options.threads));
        const exec::Topology machine = exec::Topology::detect();
        setup.topology = machine.for_local_rank(comm.local_rank());
        setup.cpu = cpu_from_environment();
        mine.host = Hasher().add(comm.host()).value();
        mine.cpus = exec::rank_cpus(machine);
        mine.features = setup.cpu.mask;
    });
    std::vector<Introduction> all(comm.size());
    const std::vector<size_t> bytes(comm.size(), sizeof mine);
    comm.all_gather(&mine, all.data(), bytes);
    std::vector<exec::RankCpus> local;
    int self = 0;
    for (int r = 0; r < comm.size(); ++r) {
        setup.cpu = setup.cpu & CpuFeatures{all[r].features};
        if (r == comm.rank()) self = static_cast<int>(local.size());
        if (all[r].host == mine.host) local.push_back(all[r].cpus);
    }
    setup.threads = options.threads > 0 ? options.threads : exec::default_threads(local, self);
    if (options.threads == 0)
        setup.advice = exec::binding_advice(local, self, setup.topology.host_cpus);
    if (options.pretend_numa_nodes > 0)
        setup.topology = exec::Topology::pretend(
            options.pretend_numa_nodes, std::max(1, setup.threads / options.pretend_numa_nodes));
    return setup;
}

}  // namespace conclave::engine
