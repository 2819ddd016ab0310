// A plugin's trial: what it registered is used a little, where a crash harms nobody.
#pragma once
#include <cstddef>
#include <string>

#include "runtime/base/cpu.h"
#include "runtime/engine/plugins/extensions.h"
#include "runtime/engine/plugins/staging.h"

namespace conclave::engine {

/// A line of text that a child process writes and its parent still has when the child is dead.
class SharedLine {
  public:
    SharedLine();  ///< throws kResource
    ~SharedLine();
    SharedLine(const SharedLine&) = delete;
    SharedLine& operator=(const SharedLine&) = delete;
    void set(const std::string& text) const;
    std::string text() const;

  private:
    static constexpr size_t kBytes = 512;
    char* text_;
};

/// Why what was registered cannot be had, beside the extensions there are; empty: nothing against
/// it. Sets `step` to what it does next. Kernels that `cpu` cannot run are passed over.
std::string try_out(const Staging& staging, const Extensions& before, CpuFeatures cpu,
                    const SharedLine& step);

}  // namespace conclave::engine
