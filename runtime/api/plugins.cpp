#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "runtime/api/conclave.hpp"
#include "runtime/engine/plugins/loader.h"

namespace conclave {

Plugins load_plugins(const std::vector<std::string>& directories) {
    auto extensions = std::make_shared<engine::Extensions>(engine::Extensions::built_in());
    Plugins plugins;
    plugins.found = engine::load_plugins(directories, *extensions);
    plugins.extensions = std::move(extensions);
    return plugins;
}

std::vector<std::string> default_plugin_path() {
    namespace fs = std::filesystem;
    std::vector<std::string> path;
    if (const char* asked = std::getenv("CONCLAVE_PLUGIN_PATH")) {
        std::istringstream directories(asked);
        for (std::string one; std::getline(directories, one, ':');)
            if (!one.empty()) path.push_back(one);
    }
    std::error_code failure;
    const fs::path program = fs::read_symlink("/proc/self/exe", failure);
    if (failure) return path;
    const fs::path beside = program.parent_path();
    path.push_back((beside / "plugins").string());
    for (const fs::path& libraries : {fs::path("lib"), fs::path(CONCLAVE_INSTALL_LIBDIR)}) {
        const std::string installed =
            (beside.parent_path() / libraries / "conclave" / "plugins").string();
        if (installed != path.back()) path.push_back(installed);
    }
    return path;
}

}  // namespace conclave
