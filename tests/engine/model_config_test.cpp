#include "runtime/engine/model_config.h"

#include <gtest/gtest.h>

#include "runtime/base/error.h"
#include "runtime/engine/model.h"

namespace conclave::engine {
namespace {

Json qwen3_moe_config() {
    return Json::parse(R"({"architectures":["Qwen3MoeForCausalLM"],"hidden_size":2048,
        "intermediate_size":6144,"moe_intermediate_size":768,"num_hidden_layers":6,
        "num_attention_heads":32,"num_key_value_heads":4,"head_dim":128,"num_experts":128,
        "num_experts_per_tok":8,"norm_topk_prob":true,"decoder_sparse_step":2,
        "mlp_only_layers":[3],"rms_norm_eps":1e-6,"rope_theta":1e6,"rope_scaling":null,
        "max_position_embeddings":40960,"vocab_size":151936,"eos_token_id":151645})");
}

TEST(ModelConfig, Qwen3Moe) {
    const Json c = qwen3_moe_config();
    const ModelShape s = find_architecture(c, "config.json").shape(c, "config.json");
    EXPECT_EQ(s.experts, 128);
    EXPECT_EQ(s.experts_per_token, 8);
    EXPECT_EQ(s.head_dim, 128);
    EXPECT_EQ(s.moe_layer, (std::vector<bool>{false, true, false, false, false, true}));
    EXPECT_EQ(s.moe_layers(), 2);
    EXPECT_EQ(s.rope.half(), 64);
    EXPECT_EQ(s.window, std::vector<int64_t>(6, 0));
}

TEST(ModelConfig, WindowsApplyOnlyWhenUsed) {
    Json c = qwen3_moe_config();
    c["sliding_window"] = 4096;
    c["use_sliding_window"] = false;
    EXPECT_EQ(find_architecture(c, "f").shape(c, "f").window[0], 0);
    c["use_sliding_window"] = true;
    EXPECT_EQ(find_architecture(c, "f").shape(c, "f").window[5], 4096);
}

TEST(ModelConfig, HeadDimDefaultsToItsShare) {
    Json c = qwen3_moe_config();
    c.erase("head_dim");
    EXPECT_EQ(find_architecture(c, "f").shape(c, "f").head_dim, 64);
}

TEST(ModelConfig, EosOfGenerationConfigWins) {
    const Json c = qwen3_moe_config();
    EXPECT_EQ(eos_tokens(c, "c", Json::object(), "g", 151936), (std::vector<int32_t>{151645}));
    EXPECT_EQ(eos_tokens(c, "c", {{"eos_token_id", {1, 2}}}, "g", 151936),
              (std::vector<int32_t>{1, 2}));
    EXPECT_THROW(eos_tokens(c, "c", {{"eos_token_id", {1, 200000}}}, "g", 151936), Error);
}

TEST(ModelConfig, FoundByModelTypeWhereNoArchitectureIsNamed) {
    Json c = qwen3_moe_config();
    c.erase("architectures");
    EXPECT_THROW(find_architecture(c, "f"), Error);
    c["model_type"] = "qwen3_moe";
    EXPECT_EQ(find_architecture(c, "f").name, "Qwen3MoeForCausalLM");
}

}  // namespace
}  // namespace conclave::engine
