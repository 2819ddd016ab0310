#include "runtime/exec/bandwidth.h"

#include <algorithm>
#include <vector>

#include "runtime/api/conclave.hpp"
#include "runtime/engine/rank_setup.h"
#include "runtime/exec/arenas.h"

namespace conclave {
namespace {

/// Of each rank: several times the largest last-level caches.
constexpr size_t kProbeBytes = size_t{256} << 20;
constexpr int kRounds = 5;

}  // namespace

double read_bandwidth(const EngineOptions& options, const Comm& c) {
    comm::Communicator& comm = *c.impl();
    const engine::RankSetup setup = engine::set_up_rank(comm, options);
    std::unique_ptr<exec::Arenas> executor;
    exec::Slab slab;
    comm::together(comm, [&] {
        executor = std::make_unique<exec::Arenas>(setup.topology, setup.threads);
        slab = exec::Slab(kProbeBytes);
        exec::touch(*executor, slab);
    });
    std::vector<double> rates;
    for (int round = 0; round < kRounds; ++round) {
        comm.barrier();
        double seconds = exec::read_once(*executor, slab);
        std::vector<double> all(comm.size());
        const std::vector<size_t> bytes(comm.size(), sizeof(double));
        comm.all_gather(&seconds, all.data(), bytes);
        rates.push_back(static_cast<double>(kProbeBytes) * comm.size() /
                        *std::max_element(all.begin(), all.end()));
    }
    return *std::max_element(rates.begin(), rates.end());
}

}  // namespace conclave
