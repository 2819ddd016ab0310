// Finds plugins, tries them out, and adds what they register to the extensions of an engine.
#pragma once
#include <string>
#include <vector>

#include "runtime/engine/plugins/extensions.h"
#include "runtime/engine/types.h"

namespace conclave::engine {

constexpr double kTrialSeconds = 10;

/// Loads one plugin into `extensions`, which stay as they are where it is refused. With `trial` it
/// is loaded in a child process first, its indexers and kernels tried there (conformance/laws.h).
/// Never throws for anything that the plugin does.
PluginReport load_plugin(const std::string& file, Extensions& extensions, bool trial,
                         double trial_seconds = kTrialSeconds);

/// Every *.so of the directories, in order of directories, then of names. Directories that do not
/// exist are passed over; a directory given twice is read once.
std::vector<PluginReport> load_plugins(const std::vector<std::string>& directories,
                                       Extensions& extensions);

}  // namespace conclave::engine
