#include "runtime/engine/plugins/loader.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

#include "quant/encoding.h"
#include "runtime/engine/plugins/host.h"
#include "tests/support/run_model.h"
#include "tests/support/temp_dir.h"

namespace conclave::engine {
namespace {

namespace fs = std::filesystem;

std::string plugin(const std::string& name) {
    return std::string(CONCLAVE_TEST_PLUGINS) + "/" + name + ".so";
}

/// All that an engine can see of extensions.
std::string contents(const Extensions& e) {
    std::string text = e.plugin_list() + ";" + std::to_string(e.loaded.size());
    for (const std::string& name : e.formats.names()) text += "\nformat " + name;
    for (const quant::Kernel* k : e.kernels.kernels()) text += std::string("\nkernel ") + k->name;
    for (const auto& [name, _] : e.indexers) text += "\nindexer " + name;
    for (const std::string& name : e.readers.names()) text += "\nreader " + name;
    return text;
}

struct Case {
    const char* name;
    const char* refusal;  ///< part of it
};

class Refused : public ::testing::TestWithParam<Case> {};

TEST_P(Refused, WithAReasonAndWithoutATrace) {
    Extensions extensions;
    ASSERT_EQ(load_plugin(plugin("good"), extensions, true).refusal, "");
    const std::string before = contents(extensions);
    const PluginReport report = load_plugin(plugin(GetParam().name), extensions, true);
    EXPECT_NE(report.refusal.find(GetParam().refusal), std::string::npos) << report.refusal;
    EXPECT_EQ(contents(extensions), before);
    EXPECT_EQ(report.file, plugin(GetParam().name));
    EXPECT_TRUE(report.formats.empty() && report.kernels.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Plugins, Refused,
    ::testing::Values(
        Case{"abi", "is built for plugin interface 999, this engine has 1"},
        Case{"size", "conclave_plugin_info has 8 bytes, not"},
        Case{"layout", "lays out data otherwise (0000000000000005, built with a\\x0abox 7) than "},
        Case{"bad_name", "its name is \"Bad Name\""},
        Case{"no_info", "no symbol conclave_plugin_info"},
        Case{"no_entry", "no symbol conclave_plugin_register"},
        Case{"undefined", "undefined symbol: conclave_no_such_function"},
        Case{"throws_error", "its entry point throws \"no mood today: file calendar\""},
        Case{"throws_standard", "its entry point throws \"beyond the pale\""},
        Case{"throws_int", "its entry point throws something that is no std::exception"},
        Case{"start", "its entry point ended with signal 6 (Aborted)"},
        Case{"crashes", "its entry point ended with signal 11 (Segmentation fault)"},
        Case{"exits", "its entry point called exit("}, Case{"nothing", "registers nothing"},
        Case{"file_none", "keeps its config in \"\", which is no plain file name"},
        Case{"file_dots", "keeps its config in \"..\", which is no plain file name"},
        Case{"file_end", "keeps its config in \".json\", which is no plain file name"},
        Case{"file_folder", "keeps its config in \"a/b.json\", which is no plain file name"},
        Case{"file_blank", "keeps its config in \"a b.json\", which is no plain file name"},
        Case{"file_other", "keeps its config in \"config.txt\", which is no plain file name"},
        Case{"file_plain",
             "format \"keeper\" keeps its config in \"config.json\", which models have"},
        Case{"file_generation", "in \"generation_config.json\", which models have"},
        Case{"file_tokenizer", "in \"tokenizer.json\", which models have"},
        Case{"file_index", "in \"model.safetensors.index.json\", which models have"},
        Case{"file_gptq", "in \"quantize_config.json\", as format \"gptq"},
        Case{"file_good", "in \"good_config.json\", as format \"good-format\" does"},
        Case{"file_twice",
             "format \"keeper2\" keeps its config in \"own.json\", as format \"keeper\""},
        Case{"taken", "format \"gptq\" is there already: of the engine"},
        Case{"taken_of_good", "format \"good-format\" is there already: of plugin good ("},
        Case{"same_name", "plugin good 1.0 is loaded already, from "},
        Case{"good", "plugin good 1.0 is loaded already, from "},
        Case{"claims_all", "format \"greedy\" claims models that are not quantized"},
        Case{"claims_gptq", "format \"greedy\" claims all that is of format \"gptq\""},
        Case{"claims_throw", "format \"greedy\" throws "},
        Case{"beyond", "indexer \"beyond\" breaks law "},
        Case{"instruction", "kernel \"untrue_first\" (of generic) ended with signal 4"},
        Case{"no_function", "kernel \"untrue_first\" has no run()"},
        Case{"isa", "kernel \"untrue_first\" declares instruction set 77"},
        Case{"not_there", "cannot open shared object file"}),
    [](const auto& i) { return std::string(i.param.name); });

TEST(Loader, DoesNotWaitForEver) {
    Extensions extensions;
    const std::string before = contents(extensions);
    EXPECT_EQ(load_plugin(plugin("hangs"), extensions, true, {.seconds = 0.5}).refusal,
              "its entry point did not end within 0.5 s");
    EXPECT_EQ(load_plugin(plugin("spins"), extensions, true, {.cpu_seconds = 1}).refusal,
              "its entry point did not end within 1 s of the CPU");
    EXPECT_EQ(contents(extensions), before);
}

TEST(Loader, FormatsHaveConfigFilesOfTheirOwn) {
    Extensions extensions;
    ASSERT_EQ(load_plugin(plugin("good"), extensions, true).refusal, "");
    EXPECT_EQ(load_plugin(plugin("file_own"), extensions, true).refusal, "");
    EXPECT_EQ(extensions.formats.find("keeper")->config_files,
              std::vector<std::string>{"keeper_config.json"});
}

TEST(Loader, SaysWhatALayoutIsBuiltWith) {
    Extensions extensions;
    const std::string why = load_plugin(plugin("layout"), extensions, true).refusal;
    const std::string json = std::to_string(NLOHMANN_JSON_VERSION_MAJOR) + "." +
                             std::to_string(NLOHMANN_JSON_VERSION_MINOR) + "." +
                             std::to_string(NLOHMANN_JSON_VERSION_PATCH);
    EXPECT_NE(why.find(", json " + json + ")"), std::string::npos) << why;
    EXPECT_NE(why.find(" " +
                       std::to_string(
#ifdef __clang__
                           __clang_major__
#else
                           __GNUC__
#endif
                           ) +
                       "."),
              std::string::npos)
        << why;
}

TEST(Loader, RefusesWhatIsNoSharedObject) {
    const testing::TempDir folder;
    const std::string text = folder.path() + "/text.so", nothing = folder.path() + "/empty.so";
    std::ofstream(text) << "#!/bin/sh\n" << std::string(5000, 'x');
    std::ofstream(nothing).close();
    Extensions extensions;
    EXPECT_NE(load_plugin(text, extensions, true).refusal.find("invalid ELF header"),
              std::string::npos);
    EXPECT_NE(load_plugin(nothing, extensions, true).refusal.find("file too short"),
              std::string::npos);
    EXPECT_EQ(contents(extensions), contents(Extensions()));
}

TEST(Loader, AddsWhatIsRegistered) {
    for (const bool trial : {true, false}) {
        Extensions extensions;
        const size_t kernels = extensions.kernels.kernels().size();
        const PluginReport report = load_plugin(plugin("good"), extensions, trial);
        ASSERT_EQ(report.refusal, "");
        EXPECT_EQ(report.name, "good");
        EXPECT_EQ(report.version, "1.0");
        EXPECT_EQ(report.description, "for tests");
        using Names = std::vector<std::string>;
        EXPECT_EQ(report.formats, Names{"good-format"});
        EXPECT_EQ(report.indexers, Names{"good-rows"});
        EXPECT_EQ(report.kernels, (Names{"good_first", "good_second"}));
        EXPECT_EQ(report.readers, Names{"good-reader"});
        EXPECT_EQ(report.notes, Names{});
        EXPECT_EQ(extensions.plugin_list(), "good 1.0");
        EXPECT_NE(extensions.formats.find("good-format"), nullptr);
        EXPECT_EQ(extensions.indexers.count("good-rows"), 1u);
        EXPECT_TRUE(extensions.readers.has("good-reader"));
        ASSERT_EQ(extensions.kernels.kernels().size(), kernels + 2);
        EXPECT_STREQ(extensions.kernels.kernels()[0]->name, "good_first");
        EXPECT_STREQ(extensions.kernels.kernels()[1]->name, "good_second");
    }
}

TEST(Loader, NotesKernelsThatThisCpuLacks) {
    const char* const asked = std::getenv("CONCLAVE_ISA");
    const std::string before = asked ? asked : "";
    setenv("CONCLAVE_ISA", "generic", 1);
    Extensions extensions;
    const PluginReport report = load_plugin(plugin("kernel_avx2"), extensions, true);
    asked ? setenv("CONCLAVE_ISA", before.c_str(), 1) : unsetenv("CONCLAVE_ISA");
    EXPECT_EQ(report.refusal, "");
    ASSERT_EQ(report.notes.size(), 1u);
    EXPECT_EQ(report.notes[0],
              "kernel fast_first needs avx2, which this CPU lacks: it is never chosen");
    const quant::Kernel* const kernel = extensions.kernels.find("fast_first");
    ASSERT_NE(kernel, nullptr);
    quant::LinearDescriptor linear;
    quant::PartDescriptor part;
    EXPECT_NE(extensions.kernels.select(linear, part, {}).kernel, kernel);
}

/// A directory of links to plugins, so that the loader meets them in the order of their names.
std::string folder_of(const testing::TempDir& folder, const std::vector<std::string>& names) {
    for (const std::string& name : names)
        fs::copy_file(plugin(name), folder.path() + "/" + name + ".so");
    fs::create_directory(folder.path() + "/folder.so");
    std::ofstream(folder.path() + "/readme.txt") << "no plugin";
    return folder.path();
}

TEST(Loader, ReadsDirectoriesInOrderOfNames) {
    const testing::TempDir first, second;
    folder_of(first, {"good", "crashes"});
    folder_of(second, {"good", "kernel_avx2"});
    const Plugins plugins = conclave::load_plugins(
        {second.path(), "/not/there", first.path(),
         second.path() + "/../" + fs::path(second.path()).filename().string()});
    ASSERT_EQ(plugins.found.size(), 4u);
    EXPECT_EQ(plugins.found[0].name, "good");
    EXPECT_EQ(plugins.found[0].file, second.path() + "/good.so");
    EXPECT_EQ(plugins.found[1].name, "fast");
    EXPECT_NE(plugins.found[2].refusal, "");  // crashes
    EXPECT_EQ(plugins.found[3].refusal,
              "plugin good 1.0 is loaded already, from " + second.path() + "/good.so");
    EXPECT_EQ(plugins.extensions->plugin_list(), "fast 1.0, good 1.0");
}

TEST(Loader, EnginesRunBesideWhatWasRefused) {
    const testing::TempDir folder;
    EngineOptions options;
    options.model = testing::fixture("qwen3moe-odd");
    options.activations = "f32";
    options.threads = 1;
    const std::vector<int32_t> prompt = {3, 1, 4, 1, 5};
    std::vector<float> expected, found;
    testing::with_engine(2, options, [&](Engine& e) { expected = testing::score(e, prompt); });
    const Plugins plugins = conclave::load_plugins({folder_of(
        folder, {"throws_int", "crashes", "instruction", "beyond", "start", "undefined", "abi"})});
    ASSERT_EQ(plugins.found.size(), 7u);
    for (const PluginReport& p : plugins.found) EXPECT_NE(p.refusal, "") << p.file;
    options.extensions = plugins.extensions;
    testing::with_engine(2, options, [&](Engine& e) { found = testing::score(e, prompt); });
    EXPECT_EQ(found, expected);
}

TEST(Loader, RanksMustHaveTheSamePlugins) {
    const testing::TempDir folder, out;
    const Plugins plugins = conclave::load_plugins({folder_of(folder, {"good"})});
    EngineOptions options;
    options.model = testing::fixture("qwen3moe-odd");
    options.threads = 1;
    const auto check = [&](int with, const std::string& wanted,
                           const std::function<void(const EngineOptions&, const Comm&)>& use) {
        const auto result = testing::on_ranks(3, [&](const Comm& comm) {
            EngineOptions own = options;
            if (comm.rank() == with) own.extensions = plugins.extensions;
            use(own, comm);
        });
        for (const std::exception_ptr& error : result.errors) try {
                ASSERT_TRUE(error);
                std::rethrow_exception(error);
            } catch (const Error& e) {
                EXPECT_EQ(e.code(), ErrorCode::kUsage);
                EXPECT_EQ(std::string(e.what()), wanted);
            }
    };
    const auto run = [](const EngineOptions& own, const Comm& comm) { Engine(own, comm); };
    const auto write = [&](const EngineOptions& own, const Comm& comm) {
        DequantizeOptions to;
        to.directory = out.path() + "/plain";
        dequantize(own, to, comm);
    };
    for (const auto& use : {std::function<void(const EngineOptions&, const Comm&)>(run),
                            std::function<void(const EngineOptions&, const Comm&)>(write)}) {
        check(0,
              "ranks have loaded different plugins: rank 1: expected good 1.0 (rank 0), "
              "found none; good 1.0 was not found in its plugin directories",
              use);
        check(2,
              "ranks have loaded different plugins: rank 2: expected none (rank 0), found "
              "good 1.0",
              use);
    }
}

/// A rank with `has` of what rank 0 has: what the error says was found there.
std::string found_where(const Extensions& has, const Extensions& first) {
    const auto result = testing::on_ranks(2, [&](const Comm& comm) {
        expect_same_plugins(*comm.impl(), comm.rank() == 0 ? first : has);
    });
    std::string found;
    for (const std::exception_ptr& error : result.errors) try {
            if (error) std::rethrow_exception(error);
            return "no error";
        } catch (const Error& e) {
            const std::string what = e.what();
            found = what.substr(what.find(", found ") + 8);
        }
    return found;
}

TEST(Loader, ARankSaysWhyItLacksAPlugin) {
    const testing::TempDir whole, broken;
    Extensions first, lacks;
    load_plugins({folder_of(whole, {"good", "kernel_avx2", "file_own"})}, first);
    ASSERT_EQ(first.plugin_list(), "fast 1.0, good 1.0, keeper 1.0");
    EXPECT_TRUE(first.refused.empty());
    // One that says its name before it is refused, one that cannot, one that is not there.
    fs::copy_file(plugin("file_plain"), broken / "keeper-x.so");
    fs::copy_file(plugin("crashes"), broken / "good.so");
    load_plugins({broken.path()}, lacks);
    ASSERT_EQ(lacks.refused.size(), 2u);
    EXPECT_EQ(lacks.refused[1].file, broken / "keeper-x.so");
    EXPECT_EQ(found_where(lacks, first),
              "none; fast 1.0 was not found in its plugin directories; good 1.0 was refused: its "
              "entry point ended with signal 11 (Segmentation fault); keeper 1.0 was refused: " +
                  lacks.refused[1].refusal);
    EXPECT_EQ(found_where(first, first), "no error");
    EXPECT_EQ(found_where(first, lacks), "fast 1.0, good 1.0, keeper 1.0");
    Extensions other = first;
    other.plugins = {"fast 1.0", "good 1.1", "keeper 1.0"};
    EXPECT_EQ(found_where(other, first), "fast 1.0, good 1.1, keeper 1.0");
}

TEST(PluginHost, EqualCodebooksAreOne) {
    std::array<float, 16> levels{};
    for (size_t i = 0; i < levels.size(); ++i) levels[i] = static_cast<float>(i) / 3 - 2;
    const auto one = plugin_host().codebook("thirds", levels);
    EXPECT_EQ(one->name, "thirds");
    EXPECT_EQ(one->levels, levels);
    EXPECT_EQ(plugin_host().codebook("other", levels), one);
    EXPECT_EQ(plugin_host().codebook("fp4 again", quant::fp4_codebook()->levels),
              quant::fp4_codebook());
    levels[7] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THROW(plugin_host().codebook("thirds", levels), Error);
}

TEST(PluginHost, ReadsConfigs) {
    const Json object = plugin_host().parse_json(R"({"a": 3, "b": 1.5, "c": true, "d": "x"})", "f");
    const int64_t five = 5;
    const std::string text = "y";
    EXPECT_EQ(plugin_host().get_int(object, "a", nullptr, 0, 9, "f"), 3);
    EXPECT_EQ(plugin_host().get_int(object, "z", &five, 0, 9, "f"), 5);
    EXPECT_THROW(plugin_host().get_int(object, "z", nullptr, 0, 9, "f"), Error);
    EXPECT_THROW(plugin_host().get_int(object, "a", nullptr, 4, 9, "f"), Error);
    EXPECT_EQ(plugin_host().get_double(object, "b", nullptr, 0, 9, "f"), 1.5);
    EXPECT_TRUE(plugin_host().get_bool(object, "c", nullptr, "f"));
    EXPECT_EQ(plugin_host().get_string(object, "d", nullptr, "f"), "x");
    EXPECT_EQ(plugin_host().get_string(object, "e", &text, "f"), "y");
    EXPECT_THROW(plugin_host().parse_json(R"({"a": 1, "a": 2})", "f"), Error);
}

TEST(PluginPath, IsTheEnvironmentsThenTheProgramsOwn) {
    const char* const asked = std::getenv("CONCLAVE_PLUGIN_PATH");
    const std::string before = asked ? asked : "";
    setenv("CONCLAVE_PLUGIN_PATH", "/one::/two/three:", 1);
    const std::vector<std::string> path = default_plugin_path();
    asked ? setenv("CONCLAVE_PLUGIN_PATH", before.c_str(), 1) : unsetenv("CONCLAVE_PLUGIN_PATH");
    ASSERT_GE(path.size(), 4u);
    EXPECT_EQ(path[0], "/one");
    EXPECT_EQ(path[1], "/two/three");
    const fs::path program = fs::read_symlink("/proc/self/exe");
    EXPECT_EQ(path[2], program.parent_path() / "plugins");
    EXPECT_EQ(path[3], program.parent_path().parent_path() / "lib/conclave/plugins");
}

}  // namespace
}  // namespace conclave::engine
