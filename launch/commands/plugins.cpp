#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/format.h"

namespace conclave::launch {
namespace {

using Json = nlohmann::ordered_json;

void print_json(const std::vector<std::string>& directories,
                const std::vector<PluginReport>& found) {
    Json json = {{"directories", directories}};
    json["plugins"] = Json::array();
    for (const PluginReport& p : found)
        json["plugins"].push_back({{"name", p.name},
                                   {"version", p.version},
                                   {"file", p.file},
                                   {"description", p.description},
                                   {"formats", p.formats},
                                   {"indexers", p.indexers},
                                   {"kernels", p.kernels},
                                   {"readers", p.readers},
                                   {"notes", p.notes},
                                   {"refusal", p.refusal}});
    print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

void print_text(const std::vector<std::string>& directories,
                const std::vector<PluginReport>& found) {
    std::string out;
    const auto line = [&](const char* heading, const std::string& text) {
        if (!text.empty()) out += fmt::format("{:<14} {}\n", heading, terminal_safe(text));
    };
    for (size_t i = 0; i < directories.size(); ++i) line(i == 0 ? "searched" : "", directories[i]);
    if (found.empty()) line("plugins", "none");
    for (const PluginReport& p : found) {
        out += '\n';
        line("plugin", p.name.empty() ? "?" : p.name + " " + p.version);
        line("file", p.file);
        line("description", p.description);
        line("formats", fmt::format("{}", fmt::join(p.formats, ", ")));
        line("indexers", fmt::format("{}", fmt::join(p.indexers, ", ")));
        line("kernels", fmt::format("{}", fmt::join(p.kernels, ", ")));
        line("readers", fmt::format("{}", fmt::join(p.readers, ", ")));
        for (const std::string& note : p.notes) line("note", note);
        line("refused", p.refusal);
    }
    print(out);
}

}  // namespace

int plugins(const Invocation& invocation, const std::vector<PluginReport>& found) {
    const std::vector<std::string> directories = default_plugin_path();
    invocation.json ? print_json(directories, found) : print_text(directories, found);
    return 0;
}

}  // namespace conclave::launch
