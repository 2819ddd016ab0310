#include "runtime/engine/plugins/extensions.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

namespace conclave::engine {
namespace {

/// Why these extensions lack plugin "name version"; empty: they have it in another version, which
/// is seen without.
std::string why_missing(const std::string& plugin, const Extensions& extensions) {
    const std::string name = plugin.substr(0, plugin.find(' '));
    for (const PluginReport& p : extensions.loaded)
        if (p.name == name) return "";
    for (const PluginReport& p : extensions.refused)
        if (p.name == name) return p.name + " " + p.version + " was refused: " + p.refusal;
    // What cannot be opened, or crashes at once, has not said its name.
    for (const PluginReport& p : extensions.refused)
        if (p.name.empty() && std::filesystem::path(p.file).stem() == name)
            return plugin + " was refused: " + p.refusal;
    return plugin + " was not found in its plugin directories";
}

/// `mine`, and why it is not all of `first`.
std::string what_was_found(const std::string& mine, const std::string& first,
                           const Extensions& extensions) {
    std::string found = mine;
    if (first == "none") return found;
    std::istringstream wanted(first);
    for (std::string plugin; std::getline(wanted >> std::ws, plugin, ',');) {
        const auto& have = extensions.plugins;
        if (std::find(have.begin(), have.end(), plugin) != have.end()) continue;
        if (const std::string why = why_missing(plugin, extensions); !why.empty())
            found += "; " + why;
    }
    return found;
}

}  // namespace

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

void expect_same_plugins(comm::Communicator& comm, const Extensions& extensions) {
    const std::string mine = extensions.plugin_list();
    uint64_t bytes = mine.size();
    comm.broadcast(&bytes, sizeof bytes, 0);
    std::string first = mine;
    first.resize(bytes);
    comm.broadcast(first.data(), bytes, 0);
    comm::together(comm, [&] {
        if (mine != first)
            throw Error(ErrorCode::kUsage, "ranks have loaded different plugins")
                .rank(comm.rank())
                .expected(first + " (rank 0)")
                .found(what_was_found(mine, first, extensions));
    });
}

}  // namespace conclave::engine
