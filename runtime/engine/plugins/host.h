// What the engine does for plugins.
#pragma once
#include "runtime/sdk/conclave/plugin.h"

namespace conclave::engine {

/// There until the process ends.
const PluginHost& plugin_host();

}  // namespace conclave::engine
