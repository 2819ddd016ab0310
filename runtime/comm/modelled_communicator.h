// Some ranks of a larger world, alone: for measuring what a rank computes where its peers are not.
// Collectives run among the ranks that are here; what absent ranks would give is made up (copies of
// the own data in gathers, nothing in sums), and what would cross hosts is written down.
#pragma once
#include <memory>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/link_model.h"

namespace conclave::comm {

struct ModelledWorld {
    std::vector<int> host_of;   ///< of each rank; hosts numbered from 0
    std::vector<int> color_of;  ///< of each rank, in the one split() that is modelled
};

/// What one rank does in a step, by the phases that it announces: layers, and all else.
class StepTrace {
  public:
    struct Part {
        double seconds = 0;  ///< collectives among the ranks that are here included
        std::vector<Collective> collectives;
    };
    std::vector<Part> layers;
    Part rest;

    void begin();                            ///< forgets what was
    void phase(const char* phase) noexcept;  ///< "layer 3 mlp": of layer 3
    void add(const Collective& collective) { part().collectives.push_back(collective); }
    void end();

  private:
    Part& part() { return layer_ < 0 ? rest : layers[static_cast<size_t>(layer_)]; }
    void charge() noexcept;

    bool running_ = false;
    int layer_ = -1;
    std::chrono::steady_clock::time_point since_{};
};

/// Rank here->rank() of `world`; `here` are the world's first ranks. `trace` may be null and must
/// outlive the communicator, as it must those split from it.
std::unique_ptr<Communicator> make_modelled(ModelledWorld world, std::shared_ptr<Communicator> here,
                                            StepTrace* trace);

}  // namespace conclave::comm
