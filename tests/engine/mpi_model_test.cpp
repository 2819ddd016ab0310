// The model under mpirun: what Local proves for all layouts must hold over MPI too. One launch per
// rank count; the rank counts with layouts of their own try each.
#include <gtest/gtest.h>

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "runtime/api/conclave_mpi.hpp"
#include "runtime/comm/communicator.h"
#include "tests/support/run_model.h"
#include "tests/support/temp_dir.h"

namespace conclave::testing {
namespace {

/// Made once and kept: MPI is finalised by main, before static objects would be destroyed.
const Comm& world() {
    static const Comm* comm = new Comm(MpiSession(nullptr, nullptr).world());
    return *comm;
}

/// rchar of /proc/self/io: bytes that this process asked of read calls.
uint64_t bytes_asked() {
    std::ifstream io("/proc/self/io");
    std::string key;
    uint64_t value = 0;
    while (io >> key >> value)
        if (key == "rchar:") return value;
    return 0;
}

uint64_t resident_peak() {
    std::ifstream status("/proc/self/status");
    std::string line;
    while (std::getline(status, line))
        if (line.rfind("VmHWM:", 0) == 0) return std::stoull(line.substr(6)) * 1024;
    return 0;
}

std::vector<std::string> layouts() {
    switch (world().size()) {
        case 2:
            return {"tp", "ep"};
        case 3:
            return {"tp", "ep"};
        default:
            return {"tp", "ep", "2x4"};
    }
}

TEST(MpiModel, LogitsEqualTheReference) {
    std::vector<std::string> models = reference_models();
    for (const std::string& quantized : quantized_models()) models.push_back(quantized);
    for (const std::string& model : models)
        for (const std::string& layout : layouts()) {
            const Reference reference(model + "/expected.safetensors");
            EngineOptions options;
            options.model = model;
            options.activations = "f32";
            options.expert_parallel = layout;
            options.max_model_len = 128;
            options.threads = 1;
            Engine engine(options, world());
            if (engine.rank() != 0) {
                engine.follow();
                continue;
            }
            const std::vector<float> logits = score(engine, reference.input_ids[0]);
            engine.shutdown();
            double worst = 0;
            for (size_t i = 0; i < logits.size(); ++i) {
                ASSERT_FALSE(std::isnan(logits[i]));
                worst =
                    std::max(worst, std::abs(static_cast<double>(logits[i]) - reference.logits[i]));
            }
            EXPECT_LT(worst / reference.deviation(), 3e-5) << model << " " << layout;
        }
}

TEST(MpiModel, DeterministicLogitsEqualThoseOfOneRank) {
    for (const std::string& layout : layouts()) {
        EngineOptions options;
        options.model = fixture("qwen3moe-odd");
        options.deterministic = true;
        options.max_model_len = 128;
        options.threads = 1;
        options.expert_parallel = layout;
        const std::vector<int32_t> prompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9};
        std::vector<float> alone;
        if (world().rank() == 0) {
            EngineOptions single = options;
            single.expert_parallel = "auto";
            with_engine(1, single, [&](Engine& engine) { alone = score(engine, prompt); });
        }
        Engine engine(options, world());
        if (engine.rank() != 0) {
            engine.follow();
            continue;
        }
        EXPECT_TRUE(score(engine, prompt) == alone) << layout;
        engine.shutdown();
    }
}

TEST(MpiModel, EachRankReadsAndHoldsOnlyItsPart) {
    EngineOptions options;
    options.model = shipped_model();
    options.max_model_len = 256;
    options.threads = 1;
    const Comm& comm = world();
    const uint64_t before = bytes_asked();
    Engine engine(options, comm);
    const uint64_t asked = bytes_asked() - before;
    const EngineStats stats = engine.stats();
    if (engine.rank() == 0) {
        generate(engine, {1, 2, 3}, 20);
        engine.shutdown();
    } else {
        engine.follow();
    }
    // Headers and JSON files are read by every rank: 31 KB of them here, read twice (the summary
    // and the engine); the rest is weights.
    EXPECT_LE(asked, stats.load_bytes_needed * 105 / 100 + (64 << 10));
    EXPECT_EQ(stats.load_bytes_requested, stats.load_bytes_needed);
    EXPECT_GT(stats.load_bytes_needed, 0u);
    EXPECT_LE(resident_peak(),
              stats.resident_weight_bytes + stats.kv_bytes + (uint64_t{256} << 20));
}

TEST(MpiModel, DequantizesToTheFilesOfOneRank) {
    const auto contents = [](const std::string& file) {
        std::ifstream in(file, std::ios::binary);
        return std::string{std::istreambuf_iterator<char>(in), {}};
    };
    // All ranks must agree on a folder: rank 0's process number names it.
    int32_t number = static_cast<int32_t>(getpid());
    world().impl()->broadcast(&number, sizeof number, 0);
    const std::string folder =
        (std::filesystem::temp_directory_path() / ("conclave-dequantize-" + std::to_string(number)))
            .string();
    for (const char* model : {"gptq-4bit-g64-actorder", "hqq-4bit-g64"}) {
        EngineOptions options;
        options.model = fixture(std::string("quantized/") + model);
        options.threads = 1;
        DequantizeOptions to;
        to.directory = folder;
        const DequantizeReport report = dequantize(options, to, world());
        if (world().rank() == 0) {
            const TempDir alone;
            DequantizeOptions single;
            single.directory = alone / "plain";
            dequantize(options, single, Comm::self());
            EXPECT_EQ(report.files, std::vector<std::string>{"model.safetensors"});
            EXPECT_EQ(contents(folder + "/model.safetensors"),
                      contents(single.directory + "/model.safetensors"));
            EXPECT_FALSE(contents(folder + "/config.json").empty());
            std::filesystem::remove_all(folder);
        }
        world().agree(nullptr);
    }
}

TEST(MpiModel, OneRankWithoutTheFileFailsAllAlike) {
    EngineOptions options;
    options.model = fixture("qwen3moe-odd");
    options.threads = 1;
    const int last = world().size() - 1;
    if (world().rank() == last) options.model = "/nonexistent/model";
    std::string what;
    int code = 0;
    try {
        Engine engine(options, world());
    } catch (const Error& e) {
        what = e.what();
        code = exit_code(e.code());
    }
    EXPECT_EQ(code, 66);
    EXPECT_NE(what.find("/nonexistent/model"), std::string::npos) << what;
    EXPECT_NE(what.find("rank " + std::to_string(last)), std::string::npos) << what;
}

}  // namespace
}  // namespace conclave::testing
