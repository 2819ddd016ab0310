// config.json whose values are each within reason and together are not. All must be refused before
// memory is spent on what they claim, with the same error at any number of ranks.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/support/run_model.h"
#include "tests/support/temp_dir.h"

namespace conclave::testing {
namespace {

using Json = nlohmann::json;

/// The odd fixture's weights beside another config.json.
class Model {
  public:
    explicit Model(const std::string& config) {
        for (const char* name : {"model.safetensors", "generation_config.json"})
            std::filesystem::create_symlink(fixture("qwen3moe-odd") + "/" + name, dir_ / name);
        std::ofstream(dir_ / "config.json") << config;
    }
    const std::string& path() const { return dir_.path(); }

  private:
    TempDir dir_;
};

Json good_config() { return Json::parse(std::ifstream(fixture("qwen3moe-odd") + "/config.json")); }

struct Outcome {
    int code = 0;
    std::string what;
};

Outcome start(int ranks, const std::string& model) {
    std::vector<Outcome> outcomes(ranks);
    on_ranks(ranks, [&](const Comm& comm) {
        EngineOptions options;
        options.model = model;
        options.threads = 1;
        try {
            Engine engine(options, comm);
        } catch (const Error& e) {
            outcomes[comm.rank()] = {exit_code(e.code()), e.what()};
        }
    });
    for (const Outcome& o : outcomes) EXPECT_EQ(o.what, outcomes[0].what);
    return outcomes[0];
}

int64_t peak_bytes() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return int64_t{usage.ru_maxrss} * 1024;
}

void expect_refused(const std::string& config, int code, const std::vector<std::string>& words) {
    const Model model(config);
    const int64_t before = peak_bytes();
    for (const int ranks : {1, 3}) {
        const Outcome o = start(ranks, model.path());
        EXPECT_EQ(o.code, code) << o.what;
        for (const std::string& w : words)
            EXPECT_NE(o.what.find(w), std::string::npos) << "'" << w << "' is not in: " << o.what;
    }
#if !defined(__SANITIZE_THREAD__)  // its shadow memory counts
    // Each of the three ranks holds a text of its own, and may do so at the same moment.
    EXPECT_LT(peak_bytes() - before, 3 * (int64_t{64} << 20));
#else
    (void)before;
#endif
}

TEST(HostileConfig, ProductsOfLegalValues) {
    const int64_t wide = int64_t{1} << 20;
    const std::vector<Json> changes = {
        {{"hidden_size", wide}, {"num_local_experts", 4096}, {"moe_intermediate_size", wide}},
        {{"num_local_experts", 4096}},
        {{"num_local_experts", 4096}, {"num_experts_per_tok", 4096}},
        {{"num_attention_heads", 4096}, {"num_key_value_heads", 4096}, {"head_dim", 4096}},
        {{"hidden_size", wide}},
        {{"vocab_size", 1 << 24}, {"hidden_size", wide}},
        {{"num_hidden_layers", 4096}},
        {{"num_hidden_layers", 4096}, {"num_local_experts", 4096}},
        {{"num_hidden_layers", 4096}, {"mlp_only_layers", {0, 1}}, {"intermediate_size", wide}},
        {{"hidden_size", wide},
         {"num_local_experts", 4096},
         {"moe_intermediate_size", wide},
         {"num_attention_heads", 4096},
         {"num_key_value_heads", 4096},
         {"head_dim", 4096},
         {"vocab_size", 1 << 24},
         {"num_hidden_layers", 4096},
         {"max_position_embeddings", 1 << 30}},
    };
    for (const Json& change : changes) {
        SCOPED_TRACE(change.dump());
        Json config = good_config();
        config.update(change);
        expect_refused(config.dump(), 65, {"model.safetensors", "tensor "});
    }
}

TEST(HostileConfig, ACacheOfAllPositionsIsNotToBeHad) {
    std::string policy;
    if (std::getline(std::ifstream("/proc/sys/vm/overcommit_memory"), policy) && policy == "1")
        GTEST_SKIP() << "this machine promises any amount of memory";
    Json config = good_config();
    config["max_position_embeddings"] = 1 << 30;
    expect_refused(config.dump(), 71, {"cannot map"});
}

TEST(HostileConfig, Text) {
    const std::string good = good_config().dump();
    const auto with = [&](const std::string& member) {
        return "{" + member + "," + good.substr(1);
    };
    const auto deep = [](size_t n) { return "\"x\":" + std::string(n, '['); };
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"", "not valid JSON"},
        {"null", "not an object"},
        {"[" + good + "]", "not an object"},
        {good + "}", "not valid JSON"},
        {with(R"("hidden_size":1)"), "duplicate JSON key"},
        {with(R"("x":{"y":1,"y":2})"), "duplicate JSON key"},
        {with(deep(10'000'000)), "nested deeper"},
        {with("\"x\":1e999"), "overflow"},
        {with("\"x\":NaN"), "not valid JSON"},
        {with("\"\xff\":1"), "UTF-8"},
        {with("\"x\":\"" + std::string(20'000'000, 'x') + "\""), "too long"},
        {std::string(100'000'000, ' '), "too large"},
    };
    for (const auto& [text, words] : cases) {
        SCOPED_TRACE(text.substr(0, 40));
        expect_refused(text, 65, {"config.json", words});
    }
}

TEST(HostileConfig, RopeNumbers) {
    const Json base = {{"rope_type", "yarn"}, {"factor", 2.0}, {"rope_theta", 1e4}};
    const std::vector<Json> wrong = {
        {{"rope_theta", 0}},
        {{"rope_theta", -1}},
        {{"rope_theta", 1e300}},
        {{"rope_theta", "1e4"}},
        {{"rope_theta", 1}},
        {{"rope_theta", 1e-300}},
        {{"factor", 0}},
        {{"factor", 1e-300}},
        {{"beta_fast", 0}},
        {{"beta_slow", -1}},
        {{"attention_factor", 1e300}},
        {{"original_max_position_embeddings", 0}},
    };
    for (const Json& change : wrong) {
        SCOPED_TRACE(change.dump());
        Json config = good_config();
        config.erase("rope_theta");
        config["rope_parameters"] = base;
        config["rope_parameters"].update(change);
        expect_refused(config.dump(), 65, {"config.json"});
    }
}

}  // namespace
}  // namespace conclave::testing
