#include <mutex>

#include "runtime/api/c/config.h"

using namespace conclave;
using namespace conclave::c_api;

namespace {

/// Plugins stay in the process, so their loading is ordered for the whole of it.
std::mutex& loading() {
    static std::mutex mutex;
    return mutex;
}

}  // namespace

conclave_status conclave_plugins_load(const char* const* directories, size_t count,
                                      conclave_plugins** plugins) {
    return guarded([&] {
        expect(plugins, "plugins");
        expect_array(directories, count, "directories");
        std::vector<std::string> path;
        for (size_t i = 0; i < count; ++i) {
            expect(directories[i], "an entry of directories");
            path.emplace_back(directories[i]);
        }
        if (count == 0) path = embedded_plugin_path();
        const std::lock_guard lock(loading());
        auto object = std::make_shared<PluginsObject>();
        object->plugins = load_plugins(path);
        *plugins = open_handle(std::move(object));
    });
}

conclave_status conclave_plugins_report(const conclave_plugins* plugins, char** json) {
    return guarded([&] {
        const auto object = object_of<PluginsObject>(plugins);
        expect(json, "json");
        *json = new_text(to_json(object->plugins));
    });
}

conclave_status conclave_plugins_destroy(conclave_plugins* plugins) {
    return guarded([&] {
        object_of<PluginsObject>(plugins);
        close_handle<PluginsObject>(plugins);
    });
}
