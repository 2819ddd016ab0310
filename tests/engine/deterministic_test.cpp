// Deterministic mode: logits are one and the same, bit for bit, whatever the layout, the batch or
// the chunks.
#include <gtest/gtest.h>

#include "tests/support/run_model.h"

namespace conclave::testing {
namespace {

EngineOptions deterministic(const std::string& model) {
    EngineOptions options;
    options.model = model;
    options.deterministic = true;
    options.threads = 1;
    options.max_model_len = 128;
    options.kv_cache_tokens = 1024;
    return options;
}

class Deterministic : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(Deterministic, LogitsAndTextAreEqualAtAllLayouts) {
    const auto& [model, activations] = GetParam();
    const Reference reference(model + "/expected.safetensors");
    EngineOptions options = deterministic(model);
    options.activations = activations;
    std::vector<float> first;
    std::vector<int32_t> first_text;
    const std::vector<std::pair<int, std::string>> layouts = {
        {1, "auto"}, {2, "tp"}, {2, "ep"}, {3, "tp"}, {3, "ep"},  {4, "tp"},  {4, "2x2"},
        {4, "ep"},   {5, "tp"}, {5, "ep"}, {8, "tp"}, {8, "2x4"}, {8, "4x2"}, {8, "ep"}};
    for (const auto& [ranks, layout] : layouts) {
        if (!is_mixture(model) && layout != "tp" && layout != "auto") continue;
        options.expert_parallel = layout;
        std::vector<float> logits;
        std::vector<int32_t> text;
        with_engine(ranks, options, [&](Engine& engine) {
            for (const auto& ids : reference.input_ids) {
                const auto one = score(engine, ids);
                logits.insert(logits.end(), one.begin(), one.end());
            }
            text = generate(engine, reference.greedy_prompt, 24);
        });
        if (first.empty()) first = logits, first_text = text;
        EXPECT_TRUE(logits == first) << ranks << " ranks, " << layout;
        EXPECT_EQ(text, first_text) << ranks << " ranks, " << layout;
    }
}

INSTANTIATE_TEST_SUITE_P(Models, Deterministic,
                         ::testing::Combine(::testing::ValuesIn(reference_models()),
                                            ::testing::Values("f32", "auto")));

TEST(Deterministic, ASequenceAloneEqualsItselfInAMixedChunkedBatch) {
    const Reference reference(fixture("qwen3moe-odd") + "/expected.safetensors");
    EngineOptions options = deterministic(fixture("qwen3moe-odd"));
    const std::vector<int32_t>& ids = reference.input_ids[0];
    std::vector<float> alone;
    with_engine(1, options, [&](Engine& engine) { alone = score(engine, ids); });
    // Chunks of at most 13 rows, shared with three other sequences that prefill and decode.
    options.max_num_batched_tokens = 13;
    options.max_num_seqs = 4;
    for (const int ranks : {1, 3}) {
        std::vector<float> mixed(alone.size(), NAN);
        with_engine(ranks, options, [&](Engine& engine) {
            for (int other = 0; other < 3; ++other) {
                SequenceRequest r;
                r.prompt.assign(reference.input_ids[1].begin() + other,
                                reference.input_ids[1].begin() + 5 + 7 * other);
                r.max_tokens = 20;
                r.ignore_eos = true;
                engine.add(std::move(r));
            }
            for (int steps = 0; steps < 3; ++steps) engine.step();
            const std::vector<float> got = score(engine, ids);
            mixed = got;
        });
        EXPECT_TRUE(mixed == alone) << ranks << " ranks";
    }
}

TEST(Deterministic, DecodedLogitsEqualPrefilledOnes) {
    const Reference reference(fixture("qwen3moe-fused") + "/expected.safetensors");
    EngineOptions options = deterministic(fixture("qwen3moe-fused"));
    const std::vector<int32_t> prompt(reference.input_ids[0].begin(),
                                      reference.input_ids[0].begin() + 5);
    with_engine(2, options, [&](Engine& engine) {
        std::vector<float> decoded;
        SequenceRequest r;
        r.prompt = prompt;
        r.max_tokens = 12;
        r.ignore_eos = true;
        r.output_logits = [&](int64_t, std::span<const float> row) {
            decoded.insert(decoded.end(), row.begin(), row.end());
        };
        engine.add(std::move(r));
        std::vector<int32_t> whole = prompt;
        while (engine.has_work())
            for (const TokenOutput& t : engine.step()) whole.push_back(t.token);
        whole.pop_back();
        const std::vector<float> prefilled = score(engine, whole);
        ASSERT_EQ(decoded.size(), prefilled.size() - (prompt.size() - 1) * 1024);
        EXPECT_TRUE(
            std::equal(decoded.begin(), decoded.end(),
                       prefilled.begin() + static_cast<int64_t>((prompt.size() - 1) * 1024)));
    });
}

}  // namespace
}  // namespace conclave::testing
