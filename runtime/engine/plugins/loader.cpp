#include "runtime/engine/plugins/loader.h"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include <spdlog/fmt/fmt.h>

#include "runtime/base/text.h"
#include "runtime/engine/plugins/child_process.h"
#include "runtime/engine/plugins/staging.h"
#include "runtime/engine/plugins/trial.h"

namespace conclave::engine {
namespace {

namespace fs = std::filesystem;

using Entry = void (*)(PluginRegistrar&);

/// A CONCLAVE_ISA that cannot be is the engine's to report, not a plugin's fault.
CpuFeatures this_cpu() {
    try {
        return cpu_from_environment();
    } catch (const Error&) {
        return detect_cpu();
    }
}

std::string canonical(const std::string& file) {
    std::error_code failure;
    const fs::path path = fs::canonical(file, failure);
    return failure ? file : path.string();
}

bool is_plugin_name(const char* name) {
    const std::string_view s = name ? name : "";
    return !s.empty() && s.size() <= 64 &&
           s.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") == s.npos;
}

bool is_version(const char* version) {
    const std::string_view s = version ? version : "";
    return !s.empty() && s.size() <= 64 &&
           std::all_of(s.begin(), s.end(), [](char c) { return c > 0x20 && c < 0x7f && c != ','; });
}

/// Why a plugin of this info cannot be called; empty: it can. Fields that other versions may have
/// elsewhere are not touched before those that say so.
std::string fault_of(const PluginInfo& info) {
    if (info.abi != kPluginAbi)
        return fmt::format(
            "is built for plugin interface {}, this engine has {}: build it with this engine's "
            "headers",
            info.abi, kPluginAbi);
    if (info.struct_size != sizeof(PluginInfo))
        return fmt::format(
            "its conclave_plugin_info has {} bytes, not {}: build it with this "
            "engine's headers",
            info.struct_size, sizeof(PluginInfo));
    if (info.layout != plugin_layout())
        return fmt::format(
            "lays out data otherwise ({:016x}, built with {}) than this engine ({:016x}, built "
            "with "
            "{}): build it with this engine's headers, compiler and libraries",
            info.layout, printable(info.built_with ? info.built_with : "?"), plugin_layout(),
            CONCLAVE_BUILT_WITH);
    if (!is_plugin_name(info.name))
        return fmt::format("its name is {}: 1 to 64 of a-z, 0-9, _ and -",
                           in_quotes(info.name ? info.name : ""));
    if (!is_version(info.version))
        return fmt::format("its version is {}: 1 to 64 letters, no blank or comma",
                           in_quotes(info.version ? info.version : ""));
    if (!info.description) return "has no description";
    return "";
}

std::string call(Entry enter, Staging& staging) {
    std::string thrown;
    try {
        enter(staging);
    } catch (const std::exception& e) {
        thrown = in_quotes(e.what(), 400);
    } catch (...) {
        thrown = "something that is no std::exception";
    }
    if (!staging.fault().empty()) return staging.fault();
    return thrown.empty() ? "" : "its entry point throws " + thrown;
}

std::string loaded_already(const std::string& name, const std::string& file,
                           const Extensions& extensions) {
    const std::string path = canonical(file);
    for (const PluginReport& p : extensions.loaded)
        if (canonical(p.file) == path || p.name == name)
            return fmt::format("plugin {} {} is loaded already, from {}", p.name, p.version,
                               p.file);
    return "";
}

/// Opens the plugin, into `report`, and has it register. Why it is refused; empty: it is not. The
/// object stays open in any case: its code may have left threads, or objects that others hold.
std::string open_and_stage(const std::string& file, const Extensions& before, Staging& staging,
                           PluginReport& report) {
    void* const object = dlopen(canonical(file).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!object) return std::string("cannot be opened: ") + printable(dlerror(), 400);
    const auto* const info = static_cast<const PluginInfo*>(dlsym(object, "conclave_plugin_info"));
    if (!info) return "has no symbol conclave_plugin_info: it is no plugin of Conclave";
    if (const std::string fault = fault_of(*info); !fault.empty()) return fault;
    report.name = info->name;
    report.version = info->version;
    report.description = printable(info->description, 200);
    const auto enter = reinterpret_cast<Entry>(dlsym(object, "conclave_plugin_register"));
    if (!enter) return "has no symbol conclave_plugin_register";
    if (std::string fault = loaded_already(report.name, file, before); !fault.empty()) return fault;
    if (std::string fault = call(enter, staging); !fault.empty()) return fault;
    if (staging.empty()) return "registers nothing";
    return "";
}

/// The trial, in the child: the report as far as a refusal needs it.
std::string try_plugin(const std::string& file, const Extensions& before, CpuFeatures cpu,
                       const SharedLine& step) {
    PluginReport report;
    Staging staging(before);
    step.set("its entry point");
    report.refusal = open_and_stage(file, before, staging, report);
    if (report.refusal.empty()) report.refusal = try_out(staging, before, cpu, step);
    const Json said = {{"name", report.name},
                       {"version", report.version},
                       {"description", report.description},
                       {"refusal", report.refusal}};
    return said.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// Fills `report` where the plugin is refused.
void run_trial(const std::string& file, const Extensions& before, CpuFeatures cpu,
               const TrialLimits& limits, PluginReport& report) {
    const SharedLine step;
    const ChildResult child = run_in_child([&] { return try_plugin(file, before, cpu, step); },
                                           limits.seconds, limits.cpu_seconds);
    if (!child.finished) {
        report.refusal = fmt::format("{} {}", step.text(), child.fate());
        return;
    }
    if (!child.error.empty()) throw Error(ErrorCode::kResource, "its trial failed: " + child.error);
    const Json said = parse_json(child.output, {.file = file});
    report.refusal = get_string(said, "refusal", file);
    if (report.refusal.empty()) return;
    report.name = get_string(said, "name", file);
    report.version = get_string(said, "version", file);
    report.description = get_string(said, "description", file);
}

void load(const std::string& file, Extensions& extensions, bool trial, const TrialLimits& limits,
          PluginReport& report) {
    const CpuFeatures cpu = this_cpu();
    report.refusal = loaded_already("", file, extensions);
    if (report.refusal.empty() && trial) run_trial(file, extensions, cpu, limits, report);
    if (!report.refusal.empty()) return;
    Staging staging(extensions);
    report.refusal = open_and_stage(file, extensions, staging, report);
    if (!report.refusal.empty()) return;
    staging.list(report);
    for (const quant::Kernel* k : staging.kernels())
        if (!cpu.has(k->isa))
            report.notes.push_back(
                fmt::format("kernel {} needs {}, which this CPU lacks: it is never chosen", k->name,
                            isa_name(k->isa)));
    Extensions next = extensions;
    staging.add_to(next);
    next.loaded.push_back(report);
    next.plugins.push_back(report.name + " " + report.version);
    std::sort(next.plugins.begin(), next.plugins.end());
    extensions = std::move(next);
}

}  // namespace

PluginReport load_plugin(const std::string& file, Extensions& extensions, bool trial,
                         const TrialLimits& limits) {
    PluginReport report;
    report.file = file;
    try {
        load(file, extensions, trial, limits, report);
    } catch (const std::exception& e) {
        report.refusal = e.what();
    }
    return report;
}

std::vector<PluginReport> load_plugins(const std::vector<std::string>& directories,
                                       Extensions& extensions) {
    std::vector<PluginReport> reports;
    std::set<std::string> seen;
    for (const std::string& directory : directories) {
        if (!seen.insert(canonical(directory)).second) continue;
        std::error_code failure;
        std::vector<std::string> files;
        if (!fs::exists(directory, failure) && !failure) continue;
        failure.clear();
        for (fs::directory_iterator it(directory, failure), end; !failure && it != end;
             it.increment(failure)) {
            std::error_code unreadable;
            if (it->path().extension() == ".so" && it->is_regular_file(unreadable))
                files.push_back(it->path().string());
        }
        if (failure) {
            PluginReport report;
            report.file = directory;
            report.refusal = "the folder cannot be read (" + failure.message() + ")";
            reports.push_back(std::move(report));
        }
        std::sort(files.begin(), files.end());
        for (const std::string& file : files)
            reports.push_back(load_plugin(file, extensions, true));
    }
    for (const PluginReport& report : reports)
        if (!report.refusal.empty()) extensions.refused.push_back(report);
    return reports;
}

}  // namespace conclave::engine
