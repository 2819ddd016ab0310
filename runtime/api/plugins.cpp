#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string_view>

#include "runtime/api/conclave.hpp"
#include "runtime/engine/plugins/loader.h"

namespace conclave {

namespace {

namespace fs = std::filesystem;

PluginDirectory look_at(const std::string& path) {
    std::error_code failure, none;
    const fs::directory_iterator entries(path, failure);
    return {path, fs::status(path, none).type() != fs::file_type::not_found, !failure};
}

std::vector<std::string> asked_for() {
    std::vector<std::string> path;
    if (const char* asked = std::getenv("CONCLAVE_PLUGIN_PATH")) {
        std::istringstream directories(asked);
        for (std::string one; std::getline(directories, one, ':');)
            if (!one.empty()) path.push_back(one);
    }
    return path;
}

/// The file that this code was loaded from; empty where nobody knows.
fs::path own_file() {
    std::error_code failure;
    Dl_info info{};
    // Of the program itself the linker knows the name that it was called by, which need not be a
    // path; a library has a slash in its name.
    if (dladdr(reinterpret_cast<const void*>(&version), &info) != 0 && info.dli_fname &&
        std::string_view(info.dli_fname).find(".so") != std::string_view::npos) {
        fs::path file = fs::canonical(info.dli_fname, failure);
        if (!failure) return file;
    }
    fs::path program = fs::read_symlink("/proc/self/exe", failure);
    return failure ? fs::path() : program;
}

}  // namespace

Plugins load_plugins(const std::vector<std::string>& directories) {
    auto extensions = std::make_shared<engine::Extensions>(engine::Extensions::built_in());
    Plugins plugins;
    for (const std::string& directory : directories) plugins.searched.push_back(look_at(directory));
    plugins.found = engine::load_plugins(directories, *extensions);
    plugins.extensions = std::move(extensions);
    return plugins;
}

std::vector<std::string> default_plugin_path() {
    std::vector<std::string> path = asked_for();
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

std::vector<std::string> embedded_plugin_path() {
    std::vector<std::string> path = asked_for();
    if (const fs::path file = own_file(); !file.empty())
        path.push_back((file.parent_path() / "conclave" / "plugins").string());
    return path;
}

}  // namespace conclave
