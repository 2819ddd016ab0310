#include <spdlog/fmt/fmt.h>

#include "launch/commands/commands.h"
#include "launch/console.h"
#include "launch/format.h"

namespace conclave::launch {
namespace {

void print_text(const Plugins& plugins) {
    std::string out;
    const auto line = [&](const char* heading, const std::string& text) {
        if (!text.empty()) out += fmt::format("{:<14} {}\n", heading, terminal_safe(text));
    };
    for (size_t i = 0; i < plugins.searched.size(); ++i) {
        const PluginDirectory& d = plugins.searched[i];
        const char* const fault = !d.there ? " (not there)" : d.readable ? "" : " (cannot be read)";
        line(i == 0 ? "searched" : "", d.path + fault);
    }
    if (plugins.found.empty()) line("plugins", "none");
    for (const PluginReport& p : plugins.found) {
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

int plugins(const Invocation& invocation, const Plugins& plugins) {
    invocation.json ? print(to_json(plugins) + "\n") : print_text(plugins);
    return 0;
}

}  // namespace conclave::launch
