#include "runtime/engine/plugins/extensions.h"

namespace conclave::engine {

const Extensions& Extensions::built_in() {
    static const Extensions extensions;
    return extensions;
}

const Extensions& Extensions::of(const EngineOptions& options) {
    return options.extensions ? *options.extensions : built_in();
}

std::string Extensions::plugin_list() const {
    std::string list;
    for (const std::string& p : plugins) list += (list.empty() ? "" : ", ") + p;
    return list.empty() ? "none" : list;
}

}  // namespace conclave::engine
