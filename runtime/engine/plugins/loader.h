// Finds plugins, tries them out, and adds what they register to the extensions of an engine.
#pragma once
#include <string>
#include <vector>

#include "runtime/engine/plugins/extensions.h"
#include "runtime/engine/types.h"

namespace conclave::engine {

/// Of a trial. Many ranks of a host may open plugins at once, from a slow file system: what a
/// plugin itself does is measured in time of the CPU, the wall's is for what never ends and does
/// nothing.
struct TrialLimits {
    int cpu_seconds = 10;
    double seconds = 60;
};

/// Loads one plugin into `extensions`, which stay as they are where it is refused. With `trial` it
/// is loaded in a child process first, its indexers and kernels tried there (conformance/laws.h).
/// Never throws for anything that the plugin does.
PluginReport load_plugin(const std::string& file, Extensions& extensions, bool trial,
                         const TrialLimits& limits = {});

/// Every *.so of the directories, in order of directories, then of names. Directories that do not
/// exist are passed over; a directory given twice is read once. What is refused is noted in
/// extensions.refused.
std::vector<PluginReport> load_plugins(const std::vector<std::string>& directories,
                                       Extensions& extensions);

}  // namespace conclave::engine
