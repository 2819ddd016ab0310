// Sequences through the public interface: sampling, limits, cancelling, misuse.
#include <gtest/gtest.h>

#include <set>

#include "tests/support/run_model.h"

namespace conclave::testing {
namespace {

EngineOptions odd() {
    EngineOptions options;
    options.model = fixture("qwen3moe-odd");
    options.threads = 1;
    options.max_model_len = 64;
    options.deterministic = true;  // so that logits, and not only draws, are equal at all ranks
    return options;
}

TEST(Generate, SamplingDoesNotDependOnTheRankCount) {
    for (const SamplingParams& sampling :
         {SamplingParams{.temperature = 0.9, .top_k = 20, .top_p = 0.95, .seed = 7},
          SamplingParams{.temperature = 1.1, .top_p = 0.9, .min_p = 0.01, .seed = 8},
          SamplingParams{.temperature = 0.7, .seed = 9}}) {
        std::set<std::vector<int32_t>> texts;
        for (const int ranks : {1, 2, 3, 5})
            with_engine(ranks, odd(), [&](Engine& engine) {
                texts.insert(generate(engine, {5, 6, 7}, 30, sampling));
            });
        EXPECT_EQ(texts.size(), 1u);
        std::vector<int32_t> other;
        SamplingParams reseeded = sampling;
        reseeded.seed += 100;
        with_engine(1, odd(), [&](Engine& engine) {
            other = generate(engine, {5, 6, 7}, 30, reseeded);
        });
        EXPECT_NE(other, *texts.begin());
    }
}

TEST(Generate, EndsAtTheLimitsItWasGiven) {
    with_engine(2, odd(), [&](Engine& engine) {
        EXPECT_EQ(generate(engine, {1, 2, 3}, 5).size(), 5u);
        EXPECT_EQ(generate(engine, std::vector<int32_t>(60, 4), 100).size(), 4u) << "max_model_len";
        EXPECT_EQ(generate(engine, {9}, 0).size(), 0u);
    });
}

TEST(Generate, RefusesWhatCannotBe) {
    with_engine(1, odd(), [&](Engine& engine) {
        const auto code = [&](std::vector<int32_t> prompt, SamplingParams sampling = {}) {
            SequenceRequest r;
            r.prompt = std::move(prompt);
            r.sampling = sampling;
            try {
                engine.add(std::move(r));
            } catch (const Error& e) {
                return exit_code(e.code());
            }
            return 0;
        };
        EXPECT_EQ(code({}), 2);
        EXPECT_EQ(code({-1}), 2);
        EXPECT_EQ(code({1024}), 2);
        EXPECT_EQ(code(std::vector<int32_t>(64, 1)), 2) << "no room for a token";
        EXPECT_EQ(code({1}, {.temperature = -1}), 2);
        EXPECT_EQ(code({1}, {.temperature = 1, .top_p = 0}), 2);
        EXPECT_FALSE(engine.has_work());
    });
}

TEST(Generate, CancelledSequencesGiveTheirBlocksBack) {
    EngineOptions options = odd();
    options.kv_cache_tokens = 64;
    with_engine(2, options, [&](Engine& engine) {
        for (int i = 0; i < 20; ++i) {
            SequenceRequest r;
            r.prompt = {1, 2, 3, 4};
            r.max_tokens = 60;  // the whole cache
            r.ignore_eos = true;
            const SequenceId id = engine.add(std::move(r));
            engine.step();
            engine.step();
            engine.cancel(id);
            const auto out = engine.step();
            ASSERT_EQ(out.size(), 1u);
            EXPECT_EQ(out[0].finish, FinishReason::kCancelled);
            EXPECT_FALSE(engine.has_work());
        }
    });
}

TEST(Generate, ManySequencesShareStepsAndFinish) {
    EngineOptions options = odd();
    options.kv_cache_tokens = 256;
    options.max_num_seqs = 3;
    std::vector<int32_t> alone;
    with_engine(1, options, [&](Engine& engine) { alone = generate(engine, {8, 9}, 20); });
    with_engine(3, options, [&](Engine& engine) {
        std::set<SequenceId> open;
        std::vector<int32_t> text;
        SequenceId watched = 0;
        for (int i = 0; i < 10; ++i) {
            SequenceRequest r;
            r.prompt = i == 4 ? std::vector<int32_t>{8, 9} : std::vector<int32_t>(i + 1, 3 + i);
            r.max_tokens = i == 4 ? 20 : 3 * i + 1;
            r.ignore_eos = true;
            const SequenceId id = engine.add(std::move(r));
            open.insert(id);
            if (i == 4) watched = id;
        }
        while (engine.has_work())
            for (const TokenOutput& t : engine.step()) {
                if (t.sequence == watched) text.push_back(t.token);
                if (t.finish != FinishReason::kNone) {
                    EXPECT_EQ(open.erase(t.sequence), 1u);
                }
            }
        EXPECT_TRUE(open.empty());
        EXPECT_EQ(text, alone);
    });
}

TEST(Tokenizer, IsFoundBesideTheModel) {
    const auto tokenizer = Tokenizer::open(shipped_model());
    ASSERT_TRUE(tokenizer);
    const auto ids = tokenizer->encode("To be, or not to be");
    EXPECT_EQ(tokenizer->decode(ids), "To be, or not to be");
    EXPECT_FALSE(Tokenizer::open(fixture("qwen3moe-odd")));
}

}  // namespace
}  // namespace conclave::testing
