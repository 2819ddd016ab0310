#include <filesystem>

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/format.h"

namespace conclave::launch {
namespace {

using Json = nlohmann::ordered_json;

struct Directory {
    std::string path;
    bool there = false, readable = false;
};

Directory look_at(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code failure, none;
    const fs::directory_iterator entries(path, failure);
    return {path, fs::status(path, none).type() != fs::file_type::not_found, !failure};
}

void print_json(const std::vector<Directory>& directories, const std::vector<PluginReport>& found) {
    Json json = {{"directories", Json::array()}, {"searched", Json::array()}};
    for (const Directory& d : directories) {
        json["directories"].push_back(d.path);
        json["searched"].push_back(
            {{"directory", d.path}, {"there", d.there}, {"readable", d.readable}});
    }
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

void print_text(const std::vector<Directory>& directories, const std::vector<PluginReport>& found) {
    std::string out;
    const auto line = [&](const char* heading, const std::string& text) {
        if (!text.empty()) out += fmt::format("{:<14} {}\n", heading, terminal_safe(text));
    };
    for (size_t i = 0; i < directories.size(); ++i) {
        const Directory& d = directories[i];
        const char* const fault = !d.there ? " (not there)" : d.readable ? "" : " (cannot be read)";
        line(i == 0 ? "searched" : "", d.path + fault);
    }
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
    std::vector<Directory> directories;
    for (const std::string& path : default_plugin_path()) directories.push_back(look_at(path));
    invocation.json ? print_json(directories, found) : print_text(directories, found);
    return 0;
}

}  // namespace conclave::launch
