// What comes out is what the C++ interface gives, and the reference.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "runtime/api/conclave.hpp"
#include "tests/api/support.h"

namespace conclave::testing {
namespace {

template <class T>
std::vector<T> reference(const char* name) {
    const auto tensor = read_tensor(kShakespeare + "/expected.safetensors", name);
    if (!tensor) throw std::runtime_error(name);
    std::vector<T> values(tensor->data.size() / sizeof(T));
    std::memcpy(values.data(), tensor->data.data(), tensor->data.size());
    return values;
}

std::vector<int32_t> narrow(const std::vector<int64_t>& ids) { return {ids.begin(), ids.end()}; }

/// What a callback of each kind was given.
struct Seen {
    std::string text;
    std::vector<int32_t> tokens, finishes;
    std::vector<int64_t> positions;
    std::vector<std::vector<float>> logits;

    static int32_t token(void* user, const conclave_token* t) {
        auto& seen = *static_cast<Seen*>(user);
        seen.text.append(t->text ? t->text : "", t->text_bytes);
        seen.tokens.push_back(t->token);
        seen.finishes.push_back(t->finish);
        return 0;
    }
    static int32_t take_logits(void* user, uint64_t, int64_t position, const float* values,
                               size_t count) {
        auto& seen = *static_cast<Seen*>(user);
        seen.positions.push_back(position);
        seen.logits.emplace_back(values, values + count);
        return 0;
    }
};

/// Greedy text of the C++ interface.
std::pair<std::string, std::vector<int32_t>> of_cpp(const std::string& prompt, int64_t tokens) {
    EngineOptions options;
    options.model = kShakespeare;
    options.activations = "f32";
    options.threads = 1;
    options.max_model_len = 128;
    Engine engine(options, Comm::self());
    const auto tokenizer = Tokenizer::open(kShakespeare);
    SequenceRequest request;
    request.prompt = tokenizer->encode(prompt);
    request.max_tokens = tokens;
    engine.add(request);
    std::vector<int32_t> ids;
    while (engine.has_work())
        for (const TokenOutput& t : engine.step()) ids.push_back(t.token);
    return {tokenizer->decode(ids), ids};
}

TEST(Results, AreThoseOfTheReference) {
    const std::vector<int32_t> prompt = narrow(reference<int64_t>("greedy_prompt"));
    const std::vector<int32_t> greedy = narrow(reference<int64_t>("greedy_ids"));
    TestEngine engine(Config(kShakespeare.c_str()));
    Order order(prompt, static_cast<int64_t>(greedy.size()));
    Seen seen;
    order.on_token = Seen::token, order.token_user = &seen;
    const uint64_t id = engine.add(order);
    engine.run();
    EXPECT_EQ(engine.tokens(id), greedy);
    EXPECT_EQ(seen.tokens, greedy);
    EXPECT_EQ(seen.finishes.back(), CONCLAVE_FINISH_LENGTH);
    const conclave_sequence_state state = engine.state(id);
    EXPECT_EQ(state.prompt_tokens, static_cast<int64_t>(prompt.size()));
    EXPECT_EQ(state.generated_tokens, static_cast<int64_t>(greedy.size()));
    EXPECT_EQ(state.finish, CONCLAVE_FINISH_LENGTH);
    conclave_engine_stats stats = {};
    stats.struct_size = sizeof stats;
    EXPECT_OK(conclave_engine_get_stats(engine, &stats));
    EXPECT_EQ(stats.generated_tokens, greedy.size());
    EXPECT_EQ(stats.prompt_tokens, prompt.size());
    EXPECT_EQ(stats.steps, greedy.size());
    EXPECT_GT(stats.resident_weight_bytes, 0u);
}

TEST(Results, TextIsThatOfTheCppInterface) {
    const auto [text, ids] = of_cpp("O Romeo, Romeo! ", 40);
    for (const size_t bytes : {SIZE_MAX, size_t{16}}) {
        TestEngine engine(Config(kShakespeare.c_str()));
        Order order;
        order.prompt = nullptr, order.prompt_tokens = 0;
        order.text = bytes == SIZE_MAX ? "O Romeo, Romeo! " : "O Romeo, Romeo! and no more";
        order.text_bytes = bytes;
        order.max_tokens = 40, order.ignore_eos = 0;
        Seen seen;
        order.on_token = Seen::token, order.token_user = &seen;
        const uint64_t id = engine.add(order);
        engine.run();
        EXPECT_EQ(engine.tokens(id), ids);
        EXPECT_EQ(engine.text(id), text);
        EXPECT_EQ(seen.text, text);
    }
}

TEST(Results, AStopStringEndsTheText) {
    const auto [text, ids] = of_cpp("O Romeo, Romeo! ", 40);
    const std::string stop = text.substr(20, 3);
    const size_t at = text.find(stop);
    TestEngine engine(Config(kShakespeare.c_str()));
    Order order;
    order.prompt = nullptr, order.prompt_tokens = 0;
    order.text = "O Romeo, Romeo! ";
    order.max_tokens = 40;
    const char* const stops[] = {"\x01never", stop.c_str()};
    order.stop = stops, order.stop_count = 2;
    Seen seen;
    order.on_token = Seen::token, order.token_user = &seen;
    const uint64_t id = engine.add(order);
    engine.run();
    EXPECT_EQ(engine.text(id), text.substr(0, at));
    EXPECT_EQ(seen.text, text.substr(0, at));
    EXPECT_EQ(engine.state(id).finish, CONCLAVE_FINISH_STOP);
    EXPECT_EQ(seen.finishes.back(), CONCLAVE_FINISH_STOP);
    EXPECT_EQ(std::count(seen.finishes.begin(), seen.finishes.end(), CONCLAVE_FINISH_NONE),
              static_cast<long>(seen.finishes.size()) - 1);
    EXPECT_LT(engine.tokens(id).size(), 40u);
    const char* const too_many[17] = {};
    order.stop = too_many, order.stop_count = 17;
    uint64_t other = 0;
    EXPECT_EQ(conclave_engine_add(engine, &order, &other), CONCLAVE_ERROR_USAGE);
    const char* const empty = "";
    order.stop = &empty, order.stop_count = 1;
    EXPECT_EQ(conclave_engine_add(engine, &order, &other), CONCLAVE_ERROR_USAGE);
}

TEST(Results, HeldBackTextComesAtTheEnd) {
    const auto [text, ids] = of_cpp("O Romeo, Romeo! ", 10);
    TestEngine engine(Config(kShakespeare.c_str()));
    Order order;
    order.prompt = nullptr, order.prompt_tokens = 0;
    order.text = "O Romeo, Romeo! ";
    order.max_tokens = 10;
    const std::string almost = text.substr(text.size() - 3) + "\x01";
    const char* const stop = almost.c_str();
    order.stop = &stop, order.stop_count = 1;
    Seen seen;
    order.on_token = Seen::token, order.token_user = &seen;
    const uint64_t id = engine.add(order);
    engine.run();
    EXPECT_EQ(engine.text(id), text);
    EXPECT_EQ(seen.text, text);
}

TEST(Results, LogitsAreThoseOfTheReference) {
    const std::vector<int32_t> all = narrow(reference<int64_t>("input_ids"));
    const std::vector<float> expected = reference<float>("logits");
    const std::vector<int32_t> ids(all.begin(), all.begin() + 64);
    const size_t vocab = expected.size() / all.size();
    TestEngine engine(Config(kShakespeare.c_str()));
    Order order(ids, 0);
    Seen seen;
    order.on_prompt_logits = Seen::take_logits, order.prompt_logits_user = &seen;
    order.keep_logits = 1;
    const uint64_t id = engine.add(order);
    size_t count = 99;
    engine.run();
    EXPECT_OK(conclave_engine_logits(engine, id, nullptr, 0, &count));
    EXPECT_EQ(count, 0u);  // no token was chosen
    EXPECT_EQ(engine.state(id).finish, CONCLAVE_FINISH_LENGTH);
    ASSERT_EQ(seen.logits.size(), ids.size());
    double worst = 0;
    for (size_t p = 0; p < ids.size(); ++p) {
        EXPECT_EQ(seen.positions[p], static_cast<int64_t>(p));
        ASSERT_EQ(seen.logits[p].size(), vocab);
        for (size_t v = 0; v < vocab; ++v)
            worst = std::max(worst, std::abs(double{seen.logits[p][v]} - expected[p * vocab + v]));
    }
    EXPECT_LT(worst, 0.05);  // f32 here, bf16 weights on both sides
}

TEST(Results, KeptLogitsAreThoseOfTheNewestToken) {
    TestEngine engine;
    Order order({5, 6}, 3);
    Seen seen;
    order.keep_logits = 1;
    order.on_output_logits = Seen::take_logits, order.output_logits_user = &seen;
    const uint64_t id = engine.add(order);
    size_t count = 99;
    EXPECT_OK(conclave_engine_logits(engine, id, nullptr, 0, &count));
    EXPECT_EQ(count, 0u);
    for (size_t k = 0; k < 3; ++k) {
        ASSERT_OK(conclave_engine_step(engine, nullptr));
        std::vector<float> logits(1024, -99);
        EXPECT_OK(conclave_engine_logits(engine, id, logits.data(), logits.size(), &count));
        EXPECT_EQ(count, 1024u);
        ASSERT_EQ(seen.logits.size(), k + 1);
        EXPECT_EQ(logits, seen.logits[k]);
        EXPECT_EQ(seen.positions[k], static_cast<int64_t>(k + 1));
        const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
        EXPECT_EQ(engine.tokens(id).back(), static_cast<int32_t>(best));
    }
}

TEST(Results, SamplingGoesThrough) {
    TestEngine engine;
    Order hot({5, 6}, 30), again({5, 6}, 30), biased({5, 6}, 3);
    for (Order* o : {&hot, &again}) o->temperature = 1.5, o->top_k = 50, o->seed = 11;
    const conclave_logit_bias bias = {123, 100};
    biased.logit_bias = &bias, biased.logit_bias_count = 1;
    const uint64_t a = engine.add(hot), b = engine.add(again), c = engine.add(biased),
                   greedy = engine.add(Order({5, 6}, 30));
    engine.run();
    EXPECT_EQ(engine.tokens(a), engine.tokens(b));
    EXPECT_NE(engine.tokens(a), engine.tokens(greedy));
    EXPECT_EQ(engine.tokens(c), (std::vector<int32_t>{123, 123, 123}));
}

TEST(Buffers, GetWhatFits) {
    TestEngine engine(Config(kShakespeare.c_str()));
    const uint64_t id = engine.add(Order({5, 6, 7}, 8));
    engine.run();
    const std::vector<int32_t> all = engine.tokens(id);
    const std::string text = engine.text(id);
    ASSERT_EQ(all.size(), 8u);
    ASSERT_GT(text.size(), 3u);
    std::vector<int32_t> some(8, -7);
    size_t count = 0;
    EXPECT_OK(conclave_engine_tokens(engine, id, some.data(), 3, &count));
    EXPECT_EQ(count, 8u);
    EXPECT_EQ(some, (std::vector<int32_t>{all[0], all[1], all[2], -7, -7, -7, -7, -7}));
    for (const size_t capacity : {size_t{2}, text.size(), text.size() + 1, text.size() + 5}) {
        std::string out(text.size() + 6, '#');
        EXPECT_OK(conclave_engine_text(engine, id, out.data(), capacity, &count));
        EXPECT_EQ(count, text.size());
        std::string expected = text.substr(0, std::min(capacity, text.size()));
        if (capacity > text.size()) expected.push_back('\0');
        expected.resize(out.size(), '#');
        EXPECT_EQ(out, expected);
    }
}

TEST(Reports, AreThoseOfTheCppInterface) {
    const Config config(kShakespeare.c_str());
    EngineOptions options;
    options.model = kShakespeare;
    options.activations = "f32";
    options.threads = 1;
    options.max_model_len = 128;
    char* json = nullptr;
    ASSERT_OK(conclave_inspect(&config, &json));
    EXPECT_EQ(json, to_json(inspect(options)));
    EXPECT_EQ(nlohmann::json::parse(json)["tokenizer"], true);
    conclave_free(json);
    ASSERT_OK(conclave_plan(&config, 3, &json));
    EXPECT_EQ(json, to_json(plan(options, 3)));
    EXPECT_EQ(nlohmann::json::parse(json)["ranks"].size(), 3u);
    conclave_free(json);
    const TestEngine engine(config);
    ASSERT_OK(conclave_engine_describe(engine, &json));
    EXPECT_NE(std::string(json).find("f32 activations"), std::string::npos) << json;
    conclave_free(json);
}

TEST(Reports, OfPlugins) {
    conclave_plugins* plugins = nullptr;
    const char* const nowhere[] = {"/nowhere"};
    ASSERT_OK(conclave_plugins_load(nowhere, 1, &plugins));
    char* json = nullptr;
    ASSERT_OK(conclave_plugins_report(plugins, &json));
    const auto report = nlohmann::json::parse(json);
    EXPECT_EQ(report["directories"], nlohmann::json::array({"/nowhere"}));
    EXPECT_EQ(report["searched"][0]["there"], false);
    EXPECT_EQ(report["plugins"].size(), 0u);
    conclave_free(json);
    Config config;
    config.plugins = plugins;
    TestEngine engine(config);
    EXPECT_OK(conclave_plugins_destroy(plugins));  // the engine goes on
    EXPECT_EQ(conclave_plugins_destroy(plugins), CONCLAVE_ERROR_HANDLE);
    engine.add(Order());
    engine.run();

    ASSERT_OK(conclave_plugins_load(nullptr, 0, &plugins));
    ASSERT_OK(conclave_plugins_report(plugins, &json));
    const auto found = nlohmann::json::parse(json)["directories"];
    ASSERT_FALSE(found.empty());
    EXPECT_TRUE(found.back().get<std::string>().ends_with("/library/conclave/plugins")) << json;
    conclave_free(json);
    EXPECT_OK(conclave_plugins_destroy(plugins));
}

TEST(Tokenizers, AreThoseOfTheCppInterface) {
    conclave_tokenizer* tokenizer = nullptr;
    EXPECT_FAILS(conclave_tokenizer_open(kTiny.c_str(), &tokenizer), CONCLAVE_ERROR_MISSING_FILE,
                 "no tokenizer.json");
    ASSERT_OK(conclave_tokenizer_open(kShakespeare.c_str(), &tokenizer));
    const auto expected = Tokenizer::open(kShakespeare)->encode("To be, or not");
    std::vector<int32_t> ids(100, -7);
    size_t count = 0, bytes = 0;
    ASSERT_OK(conclave_tokenizer_encode(tokenizer, "To be, or not", SIZE_MAX, 1, ids.data(),
                                        ids.size(), &count));
    ids.resize(count);
    EXPECT_EQ(ids, expected);
    ASSERT_OK(conclave_tokenizer_encode(tokenizer, nullptr, 0, 0, nullptr, 0, &count));
    EXPECT_EQ(count, 0u);
    EXPECT_EQ(conclave_tokenizer_encode(tokenizer, nullptr, SIZE_MAX, 0, nullptr, 0, &count),
              CONCLAVE_ERROR_USAGE);
    char text[100];
    ASSERT_OK(
        conclave_tokenizer_decode(tokenizer, ids.data(), ids.size(), 1, text, sizeof text, &bytes));
    EXPECT_STREQ(text, "To be, or not");
    EXPECT_EQ(conclave_tokenizer_decode(tokenizer, nullptr, 3, 1, text, sizeof text, &bytes),
              CONCLAVE_ERROR_USAGE);
    const std::vector<int32_t> foreign = {-1, INT32_MAX, INT32_MIN};
    EXPECT_OK(conclave_tokenizer_decode(tokenizer, foreign.data(), foreign.size(), 1, text,
                                        sizeof text, &bytes));
    EXPECT_EQ(bytes, 0u);
    EXPECT_OK(conclave_tokenizer_destroy(tokenizer));
    EXPECT_EQ(conclave_tokenizer_destroy(tokenizer), CONCLAVE_ERROR_HANDLE);
}

}  // namespace
}  // namespace conclave::testing
