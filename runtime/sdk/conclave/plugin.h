// The plugin SDK: all that a shared object needs to add quantization formats, shard indexers,
// kernels and checkpoint readers to Conclave. Headers only; nothing is to be linked with.
//
//     #include <conclave/plugin.h>
//
//     CONCLAVE_PLUGIN("my-format", "1.0", "what it is, in a line") {
//         plugin.add_format({"my-format", {}, [&host = plugin.host()](const auto& config, ...)
//         ...});
//     }
//
// What holds for every plugin:
//
// Lifetime. A plugin is never unloaded: its code, and PluginHost, stay until the process ends. What
//   it registers, or what describe() and open() hand out, is kept as long as an engine or a Plugins
//   of load_plugins() uses it, and destroyed on whichever thread lets go of it last: maybe late,
//   when the process ends, never after its code is gone; at once where the plugin is refused.
//   Kernels are not copied and must stay for ever.
// Entry. Every call of load_plugins() that finds the plugin calls conclave_plugin_register() once
//   in a child process, where it is tried out (a crash there is a refusal), and then, if nothing
//   speaks against it, once in the process itself. It should only register, and so that a second
//   call does the same.
// Threads. Registered objects are used by several engines, ranks and threads at once: their const
//   functions must be safe from any thread. conclave_plugin_register() runs on one thread.
// Errors. Any function may throw conclave::Error (or std::exception, which becomes kInternal) but
//   Kernel's functions, CheckpointReader::claims and destructors, which must not throw. An Error
//   names what it is about: .tensor(), .file(), .expected(), .found().
// Allocation. Objects may allocate while they are made, described or read; Codec::decode() works in
//   the scratch it is given, and Kernel::pack() and run() must not allocate at all.
// Trust. Configs and tensors come from strangers: check all that you use. The engine in turn checks
//   what a plugin declares, and names the plugin's part in the error.
// Output. A plugin does not print, exit, install signal handlers or change the locale.
//
// `conclave conform --plugin FILE` tests what a plugin promises; run it before you give it away.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/activation.h"
#include "quant/codec.h"
#include "quant/encoding.h"
#include "quant/kernel.h"
#include "quant/quantization_config.h"
#include "runtime/base/error.h"
#include "runtime/base/half.h"
#include "runtime/base/interval.h"
#include "runtime/base/json.h"
#include "sharding/checkpoint/reader.h"
#include "sharding/shard_indexer.h"

namespace conclave {

/// What the engine does for plugins. Any thread, at any time.
class PluginHost {
  public:
    /// Tensors of numbers as they are (bf16, f16, f32); what a format answers for layers that it
    /// leaves alone. nullopt where there is no STEM.weight (STEM of bare sources). Throws
    /// kBadContent, kUnsupported.
    virtual std::optional<quant::StoredMatrix> describe_plain(
        const quant::MatrixSource& source, const quant::TensorLookup& tensors) const = 0;

    /// The levels of CodeType::kT4. Equal levels give the same object, so that encodings with equal
    /// levels are equal. Throws kBadContent where a level is not finite.
    virtual std::shared_ptr<const quant::Codebook> codebook(
        const std::string& name, const std::array<float, 16>& levels) const = 0;

    /// The header of a tensor that has to be there in this shape and type; an empty `dtype` takes
    /// any. Throws kBadContent, and kUnsupported for the type.
    virtual quant::TensorHeader expect_tensor(const quant::TensorLookup& tensors,
                                              const std::string& name,
                                              const std::vector<int64_t>& shape,
                                              const std::string& dtype) const = 0;

    /// JSON from a stranger: bounded in size and depth, duplicate keys refused. `file` is named in
    /// errors (kBadContent).
    virtual Json parse_json(std::string_view text, const std::string& file) const = 0;

    // Members of a JSON object. nullptr `fallback`: the key is required. Throw kBadContent naming
    // file, key, expected and found.
    virtual int64_t get_int(const Json& object, std::string_view key, const int64_t* fallback,
                            int64_t min, int64_t max, const std::string& file) const = 0;
    virtual double get_double(const Json& object, std::string_view key, const double* fallback,
                              double min, double max, const std::string& file) const = 0;
    virtual bool get_bool(const Json& object, std::string_view key, const bool* fallback,
                          const std::string& file) const = 0;
    virtual std::string get_string(const Json& object, std::string_view key,
                                   const std::string* fallback, const std::string& file) const = 0;

  protected:
    ~PluginHost() = default;
};

/// What conclave_plugin_register() is given; valid while it runs.
class PluginRegistrar {
  public:
    virtual const PluginHost& host() const = 0;  ///< stays until the process ends

    // All throw kUsage where the name is taken: the plugin is refused then, whole.

    /// A checkpoint format. Codecs are part of it: describe() hands them out.
    virtual void add_format(quant::QuantizationFormat format) = 0;
    /// `examples`: pieces that it is to be tried with; it must be right about any piece that the
    /// plugin's formats describe.
    virtual void add_indexer(std::string name,
                             std::shared_ptr<const sharding::ShardIndexer> indexer,
                             std::vector<quant::StoredPiece> examples) = 0;
    /// Asked before the kernels that are there already. The kernel must stay for ever.
    virtual void add_kernel(const quant::Kernel& kernel) = 0;
    virtual void add_reader(sharding::CheckpointReader reader) = 0;

  protected:
    ~PluginRegistrar() = default;
};

/// Grows with every change to what plugins and engine share.
constexpr uint32_t kPluginAbi = 1;

#ifdef JSON_DIAGNOSTICS
constexpr uint64_t kJsonDiagnostics = JSON_DIAGNOSTICS;
#else
constexpr uint64_t kJsonDiagnostics = 0;
#endif

/// Differs where compilers or libraries lay out the shared types differently, as far as can be
/// told from sizes.
constexpr uint64_t plugin_layout() {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const uint64_t v : {uint64_t{__GXX_ABI_VERSION},
                             uint64_t{NLOHMANN_JSON_VERSION_MAJOR},
                             uint64_t{NLOHMANN_JSON_VERSION_MINOR},
                             kJsonDiagnostics,
                             uint64_t{sizeof(Json)},
                             uint64_t{sizeof(std::string)},
                             uint64_t{sizeof(std::function<void()>)},
                             uint64_t{sizeof(Error)},
                             uint64_t{sizeof(quant::PreparedInput)},
                             uint64_t{sizeof(quant::Encoding)},
                             uint64_t{sizeof(quant::StoredMatrix)},
                             uint64_t{sizeof(quant::StoredPiece)},
                             uint64_t{sizeof(quant::StagedRect)},
                             uint64_t{sizeof(quant::CodeTile)},
                             uint64_t{sizeof(quant::GemmCall)},
                             uint64_t{sizeof(quant::Kernel)},
                             uint64_t{sizeof(quant::PartDescriptor)},
                             uint64_t{sizeof(quant::QuantizationFormat)},
                             uint64_t{sizeof(sharding::OffsetTable)},
                             uint64_t{sizeof(sharding::StoredTensor)},
                             uint64_t{sizeof(sharding::Checkpoint)},
                             uint64_t{sizeof(sharding::CheckpointReader)}})
        hash = (hash ^ v) * 0x100000001b3u;
    return hash;
}

/// Plain data, read before any function of the plugin is called.
struct PluginInfo {
    uint32_t struct_size;  ///< sizeof(PluginInfo)
    uint32_t abi;          ///< kPluginAbi
    uint64_t layout;       ///< plugin_layout()
    const char* name;      ///< of the plugin: lower case, "bitsandbytes"
    const char* version;   ///< of the plugin
    const char* description;
    const char* built_with;  ///< CONCLAVE_BUILT_WITH
};

}  // namespace conclave

#define CONCLAVE_TEXT_OF_(x) #x
#define CONCLAVE_TEXT_OF(x) CONCLAVE_TEXT_OF_(x)
#ifdef __clang__
#define CONCLAVE_COMPILER \
    "clang " CONCLAVE_TEXT_OF(__clang_major__) "." CONCLAVE_TEXT_OF(__clang_minor__)
#else
#define CONCLAVE_COMPILER "g++ " CONCLAVE_TEXT_OF(__GNUC__) "." CONCLAVE_TEXT_OF(__GNUC_MINOR__)
#endif
#define CONCLAVE_JSON                                                           \
    "json " CONCLAVE_TEXT_OF(NLOHMANN_JSON_VERSION_MAJOR) "." CONCLAVE_TEXT_OF( \
        NLOHMANN_JSON_VERSION_MINOR) "." CONCLAVE_TEXT_OF(NLOHMANN_JSON_VERSION_PATCH)
/// "g++ 12.2, json 3.11.2": for people, where layouts differ.
#define CONCLAVE_BUILT_WITH CONCLAVE_COMPILER ", " CONCLAVE_JSON

/// Defines the two symbols that a plugin exports; the body that follows registers, with `plugin`, a
/// conclave::PluginRegistrar&. Once in a plugin, at file scope.
#define CONCLAVE_PLUGIN(name, version, description)                                      \
    extern "C" __attribute__((visibility("default")))                                    \
    const ::conclave::PluginInfo conclave_plugin_info = {sizeof(::conclave::PluginInfo), \
                                                         ::conclave::kPluginAbi,         \
                                                         ::conclave::plugin_layout(),    \
                                                         name,                           \
                                                         version,                        \
                                                         description,                    \
                                                         CONCLAVE_BUILT_WITH};           \
    extern "C" __attribute__((visibility("default"))) void conclave_plugin_register(     \
        ::conclave::PluginRegistrar& plugin)
