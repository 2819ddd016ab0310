// What a GGUF file's metadata say, in the form of Hugging Face's files.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <numbers>

#include "tests/checkpoint/gguf_documents.h"

namespace conclave::sharding {
namespace {

using testing::add_f32;
using testing::document;
using testing::expect_refused;
using testing::GgufFile;
using testing::json_document;
using testing::json_of;
using testing::model;

GgufFile model_of_experts(const std::string& architecture) {
    GgufFile file = model(architecture);
    file.u32(architecture + ".expert_count", 5).u32(architecture + ".expert_used_count", 2);
    for (const char* layer : {"blk.0.", "blk.1."})
        add_f32(file, layer + std::string("ffn_gate_inp.weight"), {24, 5});
    return file;
}

// ---- config.json

TEST(GgufConfig, Llama) {
    GgufFile file = model("llama");
    file.u32("llama.attention.key_length", 4).u32("llama.rope.dimension_count", 4);
    file.f32("llama.rope.freq_base", 500000);
    file.u32("tokenizer.ggml.bos_token_id", 1).u32("tokenizer.ggml.eos_token_id", 10);
    add_f32(file, "output.weight", {24, 11});
    const Json expected = {
        {"architectures", {"LlamaForCausalLM"}},
        {"model_type", "llama"},
        {"hidden_act", "silu"},
        {"hidden_size", 24},
        {"num_hidden_layers", 2},
        {"max_position_embeddings", 500},
        {"rms_norm_eps", 1e-5},
        {"intermediate_size", 40},
        {"vocab_size", 11},
        {"tie_word_embeddings", false},
        {"num_attention_heads", 3},
        {"num_key_value_heads", 1},
        {"head_dim", 4},
        {"rope_theta", 500000.0},
        {"rope_scaling", nullptr},
        {"attention_bias", false},
        {"mlp_bias", false},
        {"bos_token_id", 1},
        {"eos_token_id", 10},
        {"quantization_config", {{"quant_method", "gguf"}, {"permuted_head_dim", 4}}}};
    EXPECT_EQ(json_document(file, "config.json"), expected);
}

TEST(GgufConfig, EveryFamily) {
    struct Case {
        const char *gguf, *architecture, *model_type;
        bool experts;
    };
    for (const Case& c : {Case{"llama", "LlamaForCausalLM", "llama", false},
                          Case{"llama", "MixtralForCausalLM", "mixtral", true},
                          Case{"qwen2", "Qwen2ForCausalLM", "qwen2", false},
                          Case{"qwen2moe", "Qwen2MoeForCausalLM", "qwen2_moe", true},
                          Case{"qwen3", "Qwen3ForCausalLM", "qwen3", false},
                          Case{"qwen3moe", "Qwen3MoeForCausalLM", "qwen3_moe", true},
                          Case{"olmoe", "OlmoeForCausalLM", "olmoe", true}}) {
        SCOPED_TRACE(c.architecture);
        GgufFile file = c.experts ? model_of_experts(c.gguf) : model(c.gguf);
        const std::string prefix = c.gguf + std::string(".");
        file.u32(prefix + "expert_feed_forward_length", 6);
        file.u32(prefix + "expert_shared_feed_forward_length", 7);
        const Json config = json_document(file, "config.json");
        EXPECT_EQ(config.at("architectures"), Json({c.architecture}));
        EXPECT_EQ(config.at("model_type"), c.model_type);
        EXPECT_EQ(config.at("head_dim"), 8);
        EXPECT_EQ(config.at("rope_theta"), 10000.0);
        EXPECT_EQ(config.at("tie_word_embeddings"), true);
        const Json& format = config.at("quantization_config");
        EXPECT_EQ(format.at("quant_method"), "gguf");
        EXPECT_EQ(format.contains("permuted_head_dim"), prefix == "llama.");
        EXPECT_EQ(config.contains("num_experts_per_tok"), c.experts);
        const std::string type = c.model_type;
        if (!c.experts) continue;
        EXPECT_EQ(config.at(type == "mixtral" ? "num_local_experts" : "num_experts"), 5);
        if (type == "qwen2_moe" || type == "qwen3_moe") {
            EXPECT_EQ(config.at("moe_intermediate_size"), 6);
            EXPECT_EQ(config.at("mlp_only_layers"), Json::array());
            EXPECT_EQ(config.at("decoder_sparse_step"), 1);
            EXPECT_EQ(config.at("norm_topk_prob"), type == "qwen3_moe");
        }
        if (type == "qwen2_moe") {
            EXPECT_EQ(config.at("shared_expert_intermediate_size"), 7);
        }
        if (type == "olmoe") {
            EXPECT_EQ(config.at("norm_topk_prob"), false);
        }
    }
}

TEST(GgufConfig, WhatTensorsSay) {
    GgufFile file = model("qwen2moe");
    file.u32("qwen2moe.expert_count", 5).u32("qwen2moe.expert_used_count", 2);
    file.boolean("qwen2moe.expert_weights_norm", true);
    add_f32(file, "blk.1.ffn_gate_inp.weight", {24, 5});
    add_f32(file, "blk.1.ffn_down_exps.weight", {16, 24, 5});
    add_f32(file, "blk.1.ffn_down_shexp.weight", {48, 24});
    add_f32(file, "blk.0.attn_q.bias", {24});
    add_f32(file, "blk.77.ffn_gate_inp.weight", {24, 5});
    const Json config = json_document(file, "config.json");
    EXPECT_EQ(config.at("mlp_only_layers"), Json({0}));
    EXPECT_EQ(config.at("moe_intermediate_size"), 16);
    EXPECT_EQ(config.at("shared_expert_intermediate_size"), 48);
    EXPECT_EQ(config.at("norm_topk_prob"), true);
    EXPECT_EQ(config.at("qkv_bias"), true);
}

TEST(GgufConfig, OnePerLayer) {
    GgufFile file = model("qwen3", "attention.head_count_kv");
    file.numbers<uint32_t>("qwen3.attention.head_count_kv", GgufFile::kU32, {3, 3});
    EXPECT_EQ(json_document(file, "config.json").at("num_key_value_heads"), 3);
    GgufFile mixed = model("qwen3", "attention.head_count_kv");
    mixed.numbers<int32_t>("qwen3.attention.head_count_kv", GgufFile::kI32, {3, 1});
    expect_refused(mixed, "config.json", ErrorCode::kUnsupported,
                   {"qwen3.attention.head_count_kv", "same in all layers", "1 to 3"});
    GgufFile three = model("qwen3", "attention.head_count_kv");
    three.numbers<int32_t>("qwen3.attention.head_count_kv", GgufFile::kI32, {3, 3, 3});
    expect_refused(three, "config.json", ErrorCode::kBadContent,
                   {"qwen3.attention.head_count_kv", "2 layers", "found 3"});
}

TEST(GgufConfig, WindowsOfMixtralOnly) {
    GgufFile mixtral = model_of_experts("llama");
    mixtral.u32("llama.attention.sliding_window", 100);
    EXPECT_EQ(json_document(mixtral, "config.json").at("sliding_window"), 100);
    GgufFile wide = model_of_experts("llama");
    wide.u32("llama.attention.sliding_window", 500);
    EXPECT_EQ(json_document(wide, "config.json").at("sliding_window"), nullptr);
    GgufFile qwen = model("qwen2");
    qwen.u32("qwen2.attention.sliding_window", 100);
    expect_refused(qwen, "config.json", ErrorCode::kUnsupported,
                   {"qwen2.attention.sliding_window", "100"});
}

TEST(GgufConfig, RefusesWhatCannotBe) {
    using Change = std::function<void(GgufFile&)>;
    struct Case {
        ErrorCode code;
        std::string spare, part;
        Change change;
    };
    const auto nothing = [](GgufFile&) {};
    const std::vector<Case> cases = {
        {ErrorCode::kBadContent, "block_count", "llama.block_count", nothing},
        {ErrorCode::kBadContent, "context_length", "llama.context_length", nothing},
        {ErrorCode::kBadContent, "embedding_length", "llama.embedding_length", nothing},
        {ErrorCode::kBadContent, "feed_forward_length", "llama.feed_forward_length", nothing},
        {ErrorCode::kBadContent, "attention.head_count", "attention.head_count", nothing},
        {ErrorCode::kBadContent, "attention.layer_norm_rms_epsilon", "rms_epsilon", nothing},
        {ErrorCode::kBadContent, "token_embd.weight", "token_embd.weight", nothing},
        {ErrorCode::kBadContent, "block_count", "block_count",
         [](GgufFile& f) { f.u32("llama.block_count", 0); }},
        {ErrorCode::kBadContent, "block_count", "block_count",
         [](GgufFile& f) { f.u64("llama.block_count", uint64_t{1} << 40); }},
        {ErrorCode::kBadContent, "context_length", "context_length",
         [](GgufFile& f) { f.i32("llama.context_length", -1); }},
        {ErrorCode::kBadContent, "embedding_length", "embedding_length",
         [](GgufFile& f) { f.u32("llama.embedding_length", 23); }},
        {ErrorCode::kBadContent, "embedding_length", "token_embd.weight",
         [](GgufFile& f) { f.u32("llama.embedding_length", 27); }},
        {ErrorCode::kBadContent, "attention.head_count", "attention.head_count",
         [](GgufFile& f) { f.text("llama.attention.head_count", "3"); }},
        {ErrorCode::kBadContent, "attention.head_count_kv", "head_count_kv",
         [](GgufFile& f) { f.u32("llama.attention.head_count_kv", 4); }},
        {ErrorCode::kBadContent, "", "rope.freq_base",
         [](GgufFile& f) {
             f.f32("llama.rope.freq_base", std::numeric_limits<float>::quiet_NaN());
         }},
        {ErrorCode::kBadContent, "", "rope.freq_base",
         [](GgufFile& f) { f.f32("llama.rope.freq_base", 0); }},
        {ErrorCode::kBadContent, "", "bos_token_id",
         [](GgufFile& f) { f.u32("tokenizer.ggml.bos_token_id", 11); }},
        {ErrorCode::kBadContent, "", "eos_token_id",
         [](GgufFile& f) { f.i32("tokenizer.ggml.eos_token_id", -2); }},
        {ErrorCode::kUnsupported, "", "rope.dimension_count",
         [](GgufFile& f) { f.u32("llama.rope.dimension_count", 4); }},
        {ErrorCode::kUnsupported, "", "attention.value_length",
         [](GgufFile& f) { f.u32("llama.attention.value_length", 4); }},
        {ErrorCode::kUnsupported, "", "expert_gating_func",
         [](GgufFile& f) { f.u32("llama.expert_gating_func", 2); }},
        {ErrorCode::kUnsupported, "", "expert_weights_scale",
         [](GgufFile& f) { f.f32("llama.expert_weights_scale", 2.5f); }},
        {ErrorCode::kUnsupported, "", "attention.causal",
         [](GgufFile& f) { f.boolean("llama.attention.causal", false); }},
        {ErrorCode::kUnsupported, "", "dynamic",
         [](GgufFile& f) { f.text("llama.rope.scaling.type", "dynamic"); }},
    };
    for (const Case& c : cases) {
        SCOPED_TRACE(c.spare + " " + c.part);
        GgufFile file = model("llama", c.spare);
        c.change(file);
        expect_refused(file, "config.json", c.code, {c.part});
    }
    GgufFile no_experts = model("olmoe");
    expect_refused(no_experts, "config.json", ErrorCode::kBadContent, {"olmoe.expert_count"});
}

TEST(GgufConfig, IdsThatSayNone) {
    GgufFile file = model("qwen3");
    file.u32("tokenizer.ggml.bos_token_id", UINT32_MAX).i32("tokenizer.ggml.eos_token_id", -1);
    const Json config = json_document(file, "config.json");
    EXPECT_FALSE(config.contains("bos_token_id"));
    EXPECT_FALSE(config.contains("eos_token_id"));
    EXPECT_FALSE(document(file, "generation_config.json"));
}

TEST(GgufConfig, ModelsOfTheZoo) {
    const std::filesystem::path zoo = CONCLAVE_SOURCE_DIR "/../shared/zoo";
    if (!std::filesystem::exists(zoo / "gguf")) GTEST_SKIP() << "no zoo: " << zoo;
    const std::vector<std::pair<std::string, std::string>> files = {
        {"llama-Q8_0", "models/llama"},       {"mixtral-Q8_0", "models/mixtral"},
        {"olmoe-Q8_0", "models/olmoe"},       {"qwen2-Q8_0", "models/qwen2"},
        {"qwen2moe-Q8_0", "models/qwen2moe"}, {"qwen3-Q8_0", "models/qwen3"},
        {"odd-Q2_K", "models/qwen3moe-odd"},  {"shakespeare-Q4_K_M", "shakespeare"}};
    for (const auto& [name, source] : files) {
        SCOPED_TRACE(name);
        Json theirs = parse_json_file((zoo / source / "config.json").string());
        Json ours =
            json_of(open_gguf((zoo / "gguf" / (name + ".gguf")).string())->document("config.json"));
        // The same under an older name, absent where it is the default, or of training.
        Json rope = theirs.at("rope_parameters");
        EXPECT_EQ(ours.at("rope_theta"), rope.at("rope_theta"));
        rope.erase("rope_theta");
        EXPECT_EQ(ours.at("rope_scaling"), rope.at("rope_type") == "default" ? Json() : rope);
        if (theirs.contains("num_local_experts") && theirs.at("model_type") != "mixtral")
            theirs["num_experts"] = theirs.at("num_local_experts");
        if (!theirs.contains("head_dim") || theirs.at("head_dim").is_null())
            theirs["head_dim"] =
                theirs.at("hidden_size").get<int>() / theirs.at("num_attention_heads").get<int>();
        for (const char* key : {"architectures",
                                "model_type",
                                "hidden_act",
                                "hidden_size",
                                "num_hidden_layers",
                                "num_attention_heads",
                                "num_key_value_heads",
                                "head_dim",
                                "intermediate_size",
                                "max_position_embeddings",
                                "rms_norm_eps",
                                "vocab_size",
                                "tie_word_embeddings",
                                "num_experts",
                                "num_experts_per_tok",
                                "moe_intermediate_size",
                                "shared_expert_intermediate_size",
                                "norm_topk_prob",
                                "decoder_sparse_step",
                                "mlp_only_layers",
                                "qkv_bias",
                                "bos_token_id",
                                "eos_token_id",
                                "pad_token_id"})
            EXPECT_EQ(ours.value(key, Json()), theirs.value(key, Json())) << key;
    }
}

// ---- scaled positions

/// Divisors as converters compute and store them.
std::vector<float> llama3_divisors(double theta, int64_t head_dim, double factor, double low,
                                   double high, double original) {
    std::vector<float> divisors;
    for (int64_t i = 0; i < head_dim / 2; ++i) {
        const double wave =
            2 * std::numbers::pi *
            std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
        const double smooth = (original / wave - low) / (high - low);
        divisors.push_back(wave < original / high ? 1.0f
                           : wave > original / low
                               ? static_cast<float>(factor)
                               : static_cast<float>(1 / ((1 - smooth) / factor + smooth)));
    }
    return divisors;
}

GgufFile with_divisors(const std::vector<float>& divisors, float theta) {
    GgufFile file = model("llama");
    const auto head_dim = static_cast<uint32_t>(2 * divisors.size());
    file.u32("llama.attention.key_length", head_dim).u32("llama.attention.value_length", head_dim);
    file.f32("llama.rope.freq_base", theta);
    std::string bytes;
    for (const float d : divisors) bytes += testing::le(d);
    file.tensor("rope_freqs.weight", {divisors.size()}, GgufFile::kTensorF32, bytes);
    return file;
}

TEST(GgufRope, Llama3IsRecoveredFromItsDivisors) {
    struct Case {
        double theta;
        int64_t head_dim;
        double factor, low, high;
        int64_t original;
    };
    for (const Case& c : {Case{500000, 128, 8, 1, 4, 8192}, Case{500000, 64, 32, 1, 4, 8192},
                          Case{10000, 16, 8, 1, 4, 64}, Case{10000, 96, 3.5, 1, 7, 2048},
                          Case{1e6, 128, 16, 2, 8, 4096}, Case{10000, 8, 4, 1, 4, 200},
                          Case{1e7, 4, 4, 1, 4, 4000}}) {
        SCOPED_TRACE(std::to_string(c.head_dim) + " " + std::to_string(c.factor));
        const auto d = static_cast<double>(c.original);
        const auto divisors = llama3_divisors(c.theta, c.head_dim, c.factor, c.low, c.high, d);
        const Json config =
            json_document(with_divisors(divisors, static_cast<float>(c.theta)), "config.json");
        const Json& rope = config.at("rope_scaling");
        EXPECT_EQ(rope.at("rope_type"), "llama3");
        // Only ratios can be told; they give the same divisors.
        const auto again = llama3_divisors(c.theta, c.head_dim, rope.at("factor"),
                                           rope.at("low_freq_factor"), rope.at("high_freq_factor"),
                                           rope.at("original_max_position_embeddings"));
        size_t between = 0;
        for (size_t i = 0; i < divisors.size(); ++i) {
            EXPECT_NEAR(again[i] / divisors[i], 1, 2e-6) << i;
            between += divisors[i] > 1 && divisors[i] < static_cast<float>(c.factor);
        }
        EXPECT_EQ(rope.at("factor"), c.factor);
        if (between > 0 && c.low == 1) {
            EXPECT_EQ(rope.at("original_max_position_embeddings"), c.original);
            EXPECT_EQ(rope.at("high_freq_factor"), c.high);
        }
    }
}

TEST(GgufRope, OtherDivisorsAreRefused) {
    EXPECT_EQ(json_document(with_divisors({1, 1, 1, 1}, 1e4f), "config.json").at("rope_scaling"),
              nullptr);
    for (const std::vector<float>& divisors :
         {std::vector<float>{1, 2, 3, 8}, {8, 4, 2, 1}, {0.5f, 1, 1, 1}, {1, 8, 1, 8}}) {
        expect_refused(with_divisors(divisors, 1e4f), "config.json", ErrorCode::kUnsupported,
                       {"rope_freqs.weight", "Llama 3"});
    }
    for (const float wrong : {0.0f, -1.0f, std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN()})
        expect_refused(with_divisors({1, wrong, 8, 8}, 1e4f), "config.json", ErrorCode::kBadContent,
                       {"rope_freqs.weight", "positive"});
    GgufFile shape = model("llama");
    add_f32(shape, "rope_freqs.weight", {5});
    expect_refused(shape, "config.json", ErrorCode::kBadContent,
                   {"rope_freqs.weight", "F32 [4]", "F32 [5]"});
    GgufFile twice = with_divisors(llama3_divisors(1e4, 16, 8, 1, 4, 64), 1e4f);
    twice.text("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 2);
    expect_refused(twice, "config.json", ErrorCode::kUnsupported, {"rope_freqs.weight", "linear"});
}

TEST(GgufRope, LinearAndYarn) {
    const auto scaling = [](const std::function<void(GgufFile&)>& change) {
        GgufFile file = model("qwen3");
        change(file);
        return json_document(file, "config.json").at("rope_scaling");
    };
    EXPECT_EQ(scaling([](GgufFile& f) { f.text("qwen3.rope.scaling.type", "none"); }), nullptr);
    EXPECT_EQ(scaling([](GgufFile& f) {
                  f.text("qwen3.rope.scaling.type", "none").f32("qwen3.rope.scaling.factor", 4);
              }),
              nullptr);
    const Json linear = {{"rope_type", "linear"}, {"factor", 0.1 + 4}};
    EXPECT_EQ(
        scaling([](GgufFile& f) {
            f.text("qwen3.rope.scaling.type", "linear").f32("qwen3.rope.scaling.factor", 4.1f);
        }),
        linear);
    EXPECT_EQ(scaling([](GgufFile& f) { f.f32("qwen3.rope.scale_linear", 4.1f); }), linear);
    EXPECT_EQ(scaling([](GgufFile& f) { f.f32("qwen3.rope.scale_linear", 0); }), nullptr);
    const auto yarn = [](GgufFile& f) {
        f.text("qwen3.rope.scaling.type", "yarn").f32("qwen3.rope.scaling.factor", 4);
        f.u32("qwen3.rope.scaling.original_context_length", 125);
    };
    Json expected = {
        {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 125}};
    EXPECT_EQ(scaling(yarn), expected);
    expected["beta_fast"] = 30.0;
    expected["beta_slow"] = 2.0;
    expected["attention_factor"] = 0.9;
    EXPECT_EQ(scaling([&](GgufFile& f) {
                  yarn(f);
                  f.f32("qwen3.rope.scaling.yarn_beta_fast", 30);
                  f.f32("qwen3.rope.scaling.yarn_beta_slow", 2);
                  f.f32("qwen3.rope.scaling.yarn_attn_factor", 0.9f);
              }),
              expected);
    GgufFile no_factor = model("qwen3");
    no_factor.text("qwen3.rope.scaling.type", "yarn");
    expect_refused(no_factor, "config.json", ErrorCode::kBadContent, {"qwen3.rope.scaling.factor"});
    GgufFile log = model("qwen3");
    yarn(log);
    log.f32("qwen3.rope.scaling.yarn_log_multiplier", 0.1f);
    expect_refused(log, "config.json", ErrorCode::kUnsupported, {"yarn_log_multiplier"});
}

// ---- the other documents

TEST(GgufDocuments, Others) {
    GgufFile file = model("qwen3");
    file.text("tokenizer.ggml.model", "gpt2")
        .texts("tokenizer.ggml.tokens", {"a", "b", "<e>", "<f>"})
        .texts("tokenizer.ggml.merges", {})
        .u32("tokenizer.ggml.bos_token_id", 2)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.eot_token_id", 3)
        .u32("tokenizer.ggml.eom_token_id", 2)
        .u32("tokenizer.ggml.padding_token_id", 0)
        .boolean("tokenizer.ggml.add_bos_token", true)
        .text("tokenizer.chat_template", "{{ \"\xC3\xA9\" }}");
    EXPECT_EQ(json_document(file, "generation_config.json"),
              Json({{"bos_token_id", 2}, {"eos_token_id", {2, 3}}, {"pad_token_id", 0}}));
    const Json config = json_document(file, "tokenizer_config.json");
    EXPECT_EQ(config.at("bos_token"), "<e>");
    EXPECT_EQ(config.at("eos_token"), "<e>");
    EXPECT_EQ(config.at("pad_token"), "a");
    EXPECT_EQ(config.at("add_bos_token"), true);
    EXPECT_EQ(config.at("add_eos_token"), false);
    EXPECT_EQ(config.at("chat_template"), "{{ \"\xC3\xA9\" }}");
    EXPECT_EQ(document(file, "chat_template.jinja"), "{{ \"\xC3\xA9\" }}");
    EXPECT_FALSE(document(file, "model.safetensors.index.json"));
    const GgufFile bare = model("qwen3");
    EXPECT_TRUE(document(bare, "config.json"));
    for (const char* name : {"generation_config.json", "tokenizer.json", "tokenizer_config.json",
                             "chat_template.jinja"})
        EXPECT_FALSE(document(bare, name)) << name;
}

TEST(GgufDocuments, AWholeTokenizerIsTakenAsItIs) {
    GgufFile file = model("qwen3");
    file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.huggingface.json", "{ }");
    EXPECT_EQ(document(file, "tokenizer.json"), "{ }");
}

}  // namespace
}  // namespace conclave::sharding
