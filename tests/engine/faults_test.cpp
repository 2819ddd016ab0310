// What is wrong with a model directory, or differs between ranks, ends in one clear error on every
// rank: the same code and text, naming what is concerned.
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <mutex>
#include <set>
#include <thread>

#include <nlohmann/json.hpp>

#include "sharding/checkpoint/reader.h"
#include "tests/support/run_model.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace conclave::testing {
namespace {

using Json = nlohmann::json;
using Tensors = std::vector<TensorToWrite>;

/// A copy of the odd fixture that a test breaks.
class Broken {
  public:
    Broken() {
        const auto checkpoint = sharding::Checkpoint::open(fixture("qwen3moe-odd"));
        for (const sharding::StoredTensor& t : checkpoint->tensors()) {
            TensorToWrite w{t.name, sharding::stored_type_name(t.type), t.shape,
                            std::string(t.bytes, '\0')};
            checkpoint->read(t.file, t.offset,
                             std::as_writable_bytes(std::span(w.data.data(), w.data.size())));
            tensors.push_back(std::move(w));
        }
        config = Json::parse(std::ifstream(fixture("qwen3moe-odd") + "/config.json"));
    }
    TensorToWrite& tensor(const std::string& name) {
        for (TensorToWrite& t : tensors)
            if (t.name == name) return t;
        throw std::runtime_error("no tensor " + name);
    }
    const std::string& write() {
        write_safetensors(dir / "model.safetensors", tensors);
        std::ofstream(dir / "config.json") << config.dump(1);
        return dir.path();
    }

    TempDir dir;
    Tensors tensors;
    Json config;
};

struct Outcome {
    int code = 0;
    std::string what;
};

/// Starts an engine on `ranks` ranks, rank r with model(r), and expects all to fail alike.
Outcome fails(int ranks, const std::function<std::string(int)>& model) {
    std::vector<Outcome> outcomes(ranks);
    on_ranks(ranks, [&](const Comm& comm) {
        Outcome& o = outcomes[comm.rank()];
        try {
            EngineOptions options;
            options.model = model(comm.rank());
            options.threads = 1;
            options.max_model_len = 64;
            options.deadline_seconds = 60;
            Engine engine(options, comm);
        } catch (const Error& e) {
            o = {exit_code(e.code()), e.what()};
        }
    });
    for (const Outcome& o : outcomes) {
        EXPECT_EQ(o.code, outcomes[0].code);
        EXPECT_EQ(o.what, outcomes[0].what);
    }
    return outcomes[0];
}

Outcome fails(const std::string& model) {
    const Outcome one = fails(1, [&](int) { return model; });
    const Outcome three = fails(3, [&](int) { return model; });
    EXPECT_EQ(one.code, three.code);
    return three;
}

void expect(const Outcome& o, int code, const std::vector<std::string>& words) {
    EXPECT_EQ(o.code, code) << o.what;
    for (const std::string& w : words)
        EXPECT_NE(o.what.find(w), std::string::npos) << "'" << w << "' is not in: " << o.what;
}

const char* kDown = "model.layers.1.mlp.experts.3.down_proj.weight";

TEST(Faults, TheCopyItselfLoads) {
    Broken b;
    EXPECT_EQ(fails(b.write()).code, 0);
}

TEST(Faults, MissingTensor) {
    Broken b;
    std::erase_if(b.tensors, [](const TensorToWrite& t) { return t.name == kDown; });
    expect(fails(b.write()), 65, {kDown, "model.safetensors", "missing", "[192, 96]"});
}

TEST(Faults, MissingNorm) {
    Broken b;
    std::erase_if(b.tensors, [](const TensorToWrite& t) { return t.name == "model.norm.weight"; });
    expect(fails(b.write()), 65, {"model.norm.weight", "model.safetensors", "[192]"});
}

TEST(Faults, ExtraTensor) {
    Broken b;
    b.tensors.push_back({"model.layers.0.mlp.surprise", "F32", {2}, std::string(8, '\0')});
    expect(fails(b.write()), 65, {"model.layers.0.mlp.surprise", "model.safetensors", "F32 [2]"});
}

TEST(Faults, IgnorableTensorIsIgnored) {
    Broken b;
    b.tensors.push_back(
        {"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {2}, std::string(8, '\0')});
    EXPECT_EQ(fails(b.write()).code, 0);
}

TEST(Faults, MisShapedTensor) {
    Broken b;
    b.tensor(kDown).shape = {96, 192};
    expect(fails(b.write()), 65, {kDown, "model.safetensors", "[192, 96]", "[96, 192]"});
    Broken c;
    c.tensor("model.layers.0.input_layernorm.weight").shape = {96, 2};
    expect(fails(c.write()), 65, {"model.layers.0.input_layernorm.weight", "[192]", "[96, 2]"});
}

TEST(Faults, MisTypedTensor) {
    Broken b;
    b.tensor(kDown).dtype = "I16";
    expect(fails(b.write()), 78, {kDown, "model.safetensors", "I16"});
    Broken c;
    c.tensor("model.layers.0.self_attn.q_norm.weight").dtype = "U16";
    expect(fails(c.write()), 78, {"q_norm.weight", "U16"});
}

TEST(Faults, TruncatedFile) {
    Broken b;
    b.write();
    const auto file = b.dir / "model.safetensors";
    std::filesystem::resize_file(file, std::filesystem::file_size(file) - 10);
    expect(fails(b.dir.path()), 65, {"model.safetensors"});
}

TEST(Faults, IndexNamesAMissingFile) {
    TempDir dir;
    const std::string from = fixture("qwen3moe-fused");
    std::filesystem::copy(from, dir.path(), std::filesystem::copy_options::recursive);
    std::filesystem::remove(dir / "model-00004-of-00008.safetensors");
    expect(fails(dir.path()), 66, {"model-00004-of-00008.safetensors"});
}

TEST(Faults, TruncatedShard) {
    TempDir dir;
    std::filesystem::copy(fixture("qwen3moe-fused"), dir.path(),
                          std::filesystem::copy_options::recursive);
    std::filesystem::resize_file(dir / "model-00005-of-00008.safetensors", 50000);
    expect(fails(dir.path()), 65, {"model-00005-of-00008.safetensors"});
}

TEST(Faults, NoSuchDirectory) { expect(fails("/nonexistent/model"), 66, {"/nonexistent/model"}); }

TEST(Faults, NoConfig) {
    Broken b;
    b.write();
    std::filesystem::remove(b.dir / "config.json");
    expect(fails(b.dir.path()), 66, {"config.json"});
}

TEST(Faults, ConfigFields) {
    const std::vector<std::pair<const char*, std::vector<Json>>> wrong = {
        {"hidden_size", {nullptr, -1, 0, 1e30, 1.5, "192", 1 << 30, Json::array()}},
        {"num_hidden_layers", {nullptr, -3, 0, 100000, true}},
        {"num_attention_heads", {nullptr, -6, 0, 1 << 20}},
        {"num_key_value_heads", {-1, 0, 4, 7, "3"}},
        {"head_dim", {-32, 0, 31, 1 << 20}},
        {"vocab_size", {nullptr, -1, 0, int64_t{1} << 40}},
        {"num_local_experts", {nullptr, -5, 0, 5000, 5.5}},
        {"num_experts_per_tok", {nullptr, -2, 0, 6}},
        {"moe_intermediate_size", {nullptr, -96, 0, 1 << 24}},
        {"max_position_embeddings", {nullptr, -1, 0}},
        {"rms_norm_eps", {-1, "x", 2}},
        {"mlp_only_layers", {-1, Json::array({7}), Json::array({"a"})}},
        {"decoder_sparse_step", {0, -1}},
        {"eos_token_id", {-1, 4096, "a", Json::array({0, -1})}},
    };
    for (const auto& [key, values] : wrong)
        for (const Json& v : values) {
            Broken b;
            b.config[key] = v;
            if (v.is_null()) b.config.erase(key);
            b.write();
            if (std::string(key) == "eos_token_id")  // generation_config.json has none here
                std::filesystem::remove(b.dir / "generation_config.json");
            const Outcome o = fails(2, [&](int) { return b.dir.path(); });
            expect(o, 65, {"config.json", key});
        }
}

TEST(Faults, ConfigThatDoesNotFitTheWeights) {
    Broken b;
    b.config["num_hidden_layers"] = 1;
    expect(fails(b.write()), 65, {"model.layers.1."});
    Broken c;
    c.config["num_hidden_layers"] = 3;
    expect(fails(c.write()), 65, {"model.layers.2.", "missing"});
    Broken d;
    d.config["vocab_size"] = 1000;
    expect(fails(d.write()), 65, {"[1000, 192]", "[1024, 192]"});
}

TEST(Faults, UnknownArchitecture) {
    Broken b;
    b.config["architectures"] = {"TransmogrifierForCausalLM"};
    expect(fails(b.write()), 78, {"TransmogrifierForCausalLM", "Qwen3MoeForCausalLM"});
}

TEST(Faults, UnknownQuantization) {
    Broken b;
    b.config["quantization_config"] = {{"quant_method", "gzip"}};
    expect(fails(b.write()), 78, {"gzip"});
}

TEST(Faults, UnservedActivationAndRope) {
    Broken b;
    b.config["hidden_act"] = "relu";
    expect(fails(b.write()), 78, {"hidden_act", "relu"});
    Broken c;
    c.config["rope_parameters"] = {{"rope_type", "spiral"}, {"rope_theta", 1e4}};
    expect(fails(c.write()), 78, {"spiral"});
}

TEST(Faults, OneRankWithoutTheFile) {
    Broken b;
    const std::string good = b.write();
    const Outcome o = fails(4, [&](int r) { return r == 2 ? "/nonexistent/model" : good; });
    expect(o, 66, {"/nonexistent/model", "rank 2"});
}

TEST(Faults, RanksSeeDifferentFiles) {
    Broken a, b;
    b.tensor(kDown).dtype = "F16";  // other header, same sizes
    const std::string one = a.write(), other = b.write();
    expect(fails(3, [&](int r) { return r == 1 ? other : one; }), 65, {"different", "rank 1"});
    Broken c;
    c.config["rms_norm_eps"] = 1e-5;
    const std::string eps = c.write();
    expect(fails(3, [&](int r) { return r == 2 ? eps : one; }), 65, {"different", "rank 2"});
}

TEST(Faults, WrongOptions) {
    const auto code = [](int ranks, const std::function<void(EngineOptions&)>& change) {
        int result = 0;
        on_ranks(ranks, [&](const Comm& comm) {
            EngineOptions options;
            options.model = fixture("qwen3moe-odd");
            options.threads = 1;
            options.max_model_len = 64;
            change(options);
            try {
                Engine engine(options, comm);
            } catch (const Error& e) {
                if (comm.rank() == 0) result = exit_code(e.code());
            }
        });
        return result;
    };
    EXPECT_EQ(code(2, [](EngineOptions& o) { o.activations = "f64"; }), 2);
    EXPECT_EQ(code(2, [](EngineOptions& o) { o.expert_parallel = "3x1"; }), 2);
    EXPECT_EQ(code(2, [](EngineOptions& o) { o.expert_parallel = "both"; }), 2);
    EXPECT_EQ(code(2, [](EngineOptions& o) { o.expert_parallel = "2x"; }), 2);
    EXPECT_EQ(code(2, [](EngineOptions& o) { o.tensor_parallel_size = 1; }), 2);
    EXPECT_EQ(code(2, [](EngineOptions& o) { o.quantization = "gptq"; }), 2);
    EXPECT_EQ(code(2, [](EngineOptions& o) { o.kv_cache_dtype = "f8"; }), 2);
    EXPECT_EQ(code(2, [](EngineOptions& o) { o.max_model_len = 5000; }), 2);
    EXPECT_EQ(code(2, [](EngineOptions& o) { o.max_num_seqs = 0; }), 2);
    EXPECT_EQ(code(2, [](EngineOptions& o) { o.threads = -1; }), 2);
    EXPECT_EQ(code(2, [](EngineOptions&) {}), 0);
}

/// What followers throw while rank 0 does nothing for 0.6 s.
std::set<std::string> thrown_while_idle(double idle_deadline) {
    std::set<std::string> thrown;
    std::mutex mutex;
    on_ranks(3, [&](const Comm& comm) {
        EngineOptions options;
        options.model = fixture("qwen3moe-odd");
        options.threads = 1;
        options.max_model_len = 64;
        options.idle_deadline_seconds = idle_deadline;
        Engine engine(options, comm);
        try {
            if (comm.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(600));
            if (comm.rank() == 0) return engine.shutdown();
            engine.follow();
        } catch (const Error& e) {
            const std::lock_guard lock(mutex);
            thrown.insert(e.what());
        }
    });
    return thrown;
}

TEST(Faults, RankZeroMayBeIdle) {
    EXPECT_TRUE(thrown_while_idle(0).empty());
    const std::set<std::string> thrown = thrown_while_idle(0.1);
    ASSERT_EQ(thrown.size(), 1u);
    EXPECT_NE(thrown.begin()->find("deadline of 0.1 s"), std::string::npos) << *thrown.begin();
    EXPECT_NE(thrown.begin()->find("missing rank 0"), std::string::npos) << *thrown.begin();
}

}  // namespace
}  // namespace conclave::testing
