// Sequences through the public interface: sampling, limits, cancelling, misuse.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "tests/support/run_model.h"
#include "tests/support/temp_dir.h"

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

TEST(Generate, PenaltiesAndBiasDoNotDependOnRanksOrNeighbours) {
    const SamplingParams plain;
    for (const SamplingParams& sampling :
         {SamplingParams{.repetition_penalty = 1.6},
          SamplingParams{.frequency_penalty = 0.7, .presence_penalty = 0.9},
          SamplingParams{.temperature = 0.8,
          .top_k = 30,
          .seed = 3,
          .logit_bias = {{17, 3.0}, {18, -100.0}},
          .repetition_penalty = 1.2,
          .presence_penalty = -0.5}}) {
        std::set<std::vector<int32_t>> texts;
        for (const int ranks : {1, 2, 3, 5})
            with_engine(ranks, odd(), [&](Engine& engine) {
                texts.insert(generate(engine, {5, 6, 7}, 30, sampling));
            });
        EngineOptions shared = odd();
        shared.kv_cache_tokens = 256;
        with_engine(2, shared, [&](Engine& engine) {
            std::vector<int32_t> text;
            SequenceId watched = 0;
            for (int i = 0; i < 4; ++i) {
                SequenceRequest r;
                r.prompt = i == 2 ? std::vector<int32_t>{5, 6, 7} : std::vector<int32_t>{5, 9 + i};
                r.max_tokens = 30;
                r.ignore_eos = true;
                r.sampling = i == 2 ? sampling : plain;
                const SequenceId id = engine.add(std::move(r));
                if (i == 2) watched = id;
            }
            while (engine.has_work())
                for (const TokenOutput& t : engine.step())
                    if (t.sequence == watched) text.push_back(t.token);
            texts.insert(text);
        });
        EXPECT_EQ(texts.size(), 1u);
        with_engine(1, odd(), [&](Engine& engine) {
            EXPECT_NE(generate(engine, {5, 6, 7}, 30), *texts.begin());
        });
    }
}

TEST(Generate, GreedyWithPenaltiesIsTheArgmaxOfThePenalisedLogits) {
    const SamplingParams p{.logit_bias = {{40, 1.5}, {41, -2.0}},
                           .repetition_penalty = 1.3,
                           .frequency_penalty = 0.4,
                           .presence_penalty = 0.3};
    with_engine(2, odd(), [&](Engine& engine) {
        const std::vector<int32_t> prompt{5, 40, 7};
        std::vector<int32_t> wanted, found, unchanged;
        SequenceRequest r;
        r.prompt = prompt;
        r.max_tokens = 40;
        r.sampling = p;
        r.ignore_eos = true;
        r.output_logits = [&](int64_t, std::span<const float> logits) {  // called before the choice
            std::vector<float> l(logits.begin(), logits.end());
            unchanged.push_back(
                static_cast<int32_t>(std::max_element(l.begin(), l.end()) - l.begin()));
            for (const auto& [id, bias] : p.logit_bias) l[id] += static_cast<float>(bias);
            for (size_t id = 0; id < l.size(); ++id) {
                const auto times = [&](const std::vector<int32_t>& ids) {
                    return std::count(ids.begin(), ids.end(), static_cast<int32_t>(id));
                };
                const auto n = times(found);
                if (n + times(prompt) > 0)
                    l[id] = static_cast<float>(l[id] > 0 ? l[id] / p.repetition_penalty
                                                         : l[id] * p.repetition_penalty);
                if (n > 0)
                    l[id] -= static_cast<float>(p.frequency_penalty * static_cast<double>(n) +
                                                p.presence_penalty);
            }
            wanted.push_back(
                static_cast<int32_t>(std::max_element(l.begin(), l.end()) - l.begin()));
        };
        engine.add(std::move(r));
        while (engine.has_work())
            for (const TokenOutput& t : engine.step()) found.push_back(t.token);
        EXPECT_EQ(found.size(), 40u);
        EXPECT_EQ(found, wanted);
        EXPECT_NE(found, unchanged);
    });
}

/// The fixture, with its own generation_config.json; the weights are linked, not copied.
std::string with_generation_config(const TempDir& scratch, const std::string& json) {
    namespace fs = std::filesystem;
    const fs::path to = fs::path(scratch.path()) / "model";
    fs::remove_all(to);
    fs::create_directories(to);
    for (const auto& entry : fs::directory_iterator(fixture("qwen3moe-odd")))
        if (entry.path().filename() != "generation_config.json")
            fs::create_symlink(entry.path(), to / entry.path().filename());
    std::ofstream(to / "generation_config.json") << json;
    return to.string();
}

TEST(Generate, EndsAtAnyOfTheEndTokensOfTheGenerationConfig) {
    std::vector<int32_t> free;
    with_engine(1, odd(), [&](Engine& engine) { free = generate(engine, {5, 6, 7}, 30); });
    // Two tokens that come, the later one listed first.
    const int32_t first = free[4], second = free[9];
    const auto place = [&](int32_t a, int32_t b) {
        return std::find_if(free.begin(), free.end(),
                            [&](int32_t id) { return id == a || id == b; }) -
               free.begin() + 1;
    };
    const TempDir scratch;
    const auto check = [&](const std::string& eos, int64_t length) {
        EngineOptions options = odd();
        options.model = with_generation_config(scratch, "{\"eos_token_id\": " + eos + "}");
        with_engine(2, options, [&](Engine& engine) {
            for (const bool ignore : {false, true}) {
                SequenceRequest r;
                r.prompt = {5, 6, 7};
                r.max_tokens = 30;
                r.ignore_eos = ignore;
                engine.add(std::move(r));
                std::vector<int32_t> found;
                FinishReason finish = FinishReason::kNone;
                while (engine.has_work())
                    for (const TokenOutput& t : engine.step()) {
                        found.push_back(t.token);
                        finish = t.finish;
                    }
                const auto wanted = ignore ? 30 : length;
                EXPECT_EQ(found, std::vector<int32_t>(free.begin(), free.begin() + wanted)) << eos;
                EXPECT_EQ(finish, wanted < 30 ? FinishReason::kStop : FinishReason::kLength);
            }
        });
    };
    check("[" + std::to_string(second) + ", " + std::to_string(first) + "]", place(first, second));
    check(std::to_string(second), place(second, second));
    check("[" + std::to_string(first) + "]", place(first, first));
    EXPECT_LT(place(first, second), place(second, second))
        << "the fixture tells lists from numbers";
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
        EXPECT_EQ(code({1}, {.repetition_penalty = 0}), 2);
        EXPECT_EQ(code({1}, {.logit_bias = {{1024, 1.0}}}), 2);
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

TEST(Tokenizer, StreamsUpToAStopString) {
    const auto tokenizer = Tokenizer::open(shipped_model());
    ASSERT_TRUE(tokenizer);
    const std::string text = "Friends, Romans, countrymen, lend me your ears";
    const auto ids = tokenizer->encode(text, false);
    const auto streamed = [&](const std::vector<std::string>& stop) {
        TextStream stream = tokenizer->stream(true, stop);
        std::string out;
        for (const int32_t id : ids) out += stream.add(id);
        out += stream.finish();
        return out + (stream.stopped() ? "|" : "");
    };
    EXPECT_EQ(streamed({}), text);
    EXPECT_EQ(streamed({"Greeks"}), text);
    for (size_t begin = 0; begin < text.size(); ++begin)  // inside tokens, and across them
        for (const size_t size : {1, 3, 12}) {
            const std::string stop = text.substr(begin, size);
            EXPECT_EQ(streamed({"Greeks", stop}), text.substr(0, text.find(stop)) + "|") << stop;
        }
    EXPECT_EQ(streamed({text + "!"}), text);
    EXPECT_THROW(tokenizer->stream(true, {"a", ""}), Error);
}

}  // namespace
}  // namespace conclave::testing
