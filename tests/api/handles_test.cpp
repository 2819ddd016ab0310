// What is no handle, no struct and no place to write to is told, and nothing happens.
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "tests/api/support.h"

namespace conclave::testing {
namespace {

template <class Handle>
Handle* handle(uint64_t bits) {
    return reinterpret_cast<Handle*>(bits);
}

/// Calls every function that takes an engine with `e`.
std::map<std::string, conclave_status> call_all(conclave_engine* e) {
    std::map<std::string, conclave_status> out;
    conclave_engine_info info = {};
    info.struct_size = sizeof info;
    conclave_engine_stats stats = {};
    stats.struct_size = sizeof stats;
    conclave_sequence_state state = {};
    state.struct_size = sizeof state;
    char* text = nullptr;
    uint64_t id = 0;
    size_t count = 0;
    const Order order;
    out["info"] = conclave_engine_get_info(e, &info);
    out["stats"] = conclave_engine_get_stats(e, &stats);
    out["describe"] = conclave_engine_describe(e, &text);
    out["add"] = conclave_engine_add(e, &order, &id);
    out["cancel"] = conclave_engine_cancel(e, 1);
    out["release"] = conclave_engine_release(e, 1);
    out["sequence"] = conclave_engine_sequence(e, 1, &state);
    out["tokens"] = conclave_engine_tokens(e, 1, nullptr, 0, &count);
    out["text"] = conclave_engine_text(e, 1, nullptr, 0, &count);
    out["logits"] = conclave_engine_logits(e, 1, nullptr, 0, &count);
    out["step"] = conclave_engine_step(e, nullptr);
    out["follow"] = conclave_engine_follow(e);
    out["shutdown"] = conclave_engine_shutdown(e);
    out["destroy"] = conclave_engine_destroy(e);
    EXPECT_EQ(text, nullptr);
    return out;
}

void expect_no_handle(conclave_engine* e, const std::string& words) {
    for (const auto& [name, status] : call_all(e)) {
        EXPECT_EQ(status, CONCLAVE_ERROR_HANDLE) << name;
        EXPECT_NE(std::string(conclave_last_error()).find(words), std::string::npos)
            << conclave_last_error();
    }
}

TEST(Handles, NullAndGarbageAreTold) {
    expect_no_handle(nullptr, "the conclave_engine is null");
    int on_stack = 0;
    std::mt19937_64 random(7);
    std::vector<uint64_t> garbage = {0x1234, 1, UINT64_MAX, reinterpret_cast<uint64_t>(&on_stack),
                                     reinterpret_cast<uint64_t>(&call_all)};
    for (int i = 0; i < 50; ++i) garbage.push_back(random());
    for (const uint64_t bits : garbage) expect_no_handle(handle<conclave_engine>(bits), "not a");
    conclave_engine* out = handle<conclave_engine>(99);
    const Config config;
    EXPECT_FAILS(conclave_engine_create(&config, handle<conclave_comm>(0x1234), &out),
                 CONCLAVE_ERROR_HANDLE, "not a conclave_comm");
    EXPECT_EQ(out, handle<conclave_engine>(99));
}

TEST(Handles, EveryBitOfALivingOneMatters) {
    TestEngine engine;
    const auto bits = reinterpret_cast<uint64_t>(static_cast<conclave_engine*>(engine));
    for (int b = 0; b < 64; ++b)
        expect_no_handle(handle<conclave_engine>(bits ^ uint64_t{1} << b), "a");
}

TEST(Handles, OfAnotherKindAreTold) {
    conclave_comm* comm = nullptr;
    ASSERT_OK(conclave_comm_local(1, &comm));
    expect_no_handle(reinterpret_cast<conclave_engine*>(comm),
                     "not a conclave_engine but a conclave_comm");
    TestEngine engine;
    EXPECT_FAILS(conclave_comm_destroy(
                     reinterpret_cast<conclave_comm*>(static_cast<conclave_engine*>(engine))),
                 CONCLAVE_ERROR_HANDLE, "but a conclave_engine");
    Config config;
    config.plugins = reinterpret_cast<conclave_plugins*>(comm);
    conclave_engine* none = nullptr;
    EXPECT_FAILS(conclave_engine_create(&config, nullptr, &none), CONCLAVE_ERROR_HANDLE,
                 "not a conclave_plugins but a conclave_comm");
    EXPECT_OK(conclave_comm_destroy(comm));
}

TEST(Handles, DestroyedOnesAreTold) {
    TestEngine engine;
    conclave_engine* const old = engine;
    EXPECT_OK(engine.destroy());
    expect_no_handle(old, "the conclave_engine was destroyed");
    conclave_comm* comm = nullptr;
    ASSERT_OK(conclave_comm_local(1, &comm));
    EXPECT_OK(conclave_comm_destroy(comm));
    int32_t number = 77;
    EXPECT_FAILS(conclave_comm_destroy(comm), CONCLAVE_ERROR_HANDLE, "was destroyed");
    EXPECT_FAILS(conclave_comm_rank(comm, &number), CONCLAVE_ERROR_HANDLE, "was destroyed");
    EXPECT_FAILS(conclave_comm_size(comm, &number), CONCLAVE_ERROR_HANDLE, "was destroyed");
    EXPECT_EQ(number, 77);
    const Config config;
    conclave_engine* none = nullptr;
    EXPECT_FAILS(conclave_engine_create(&config, comm, &none), CONCLAVE_ERROR_HANDLE,
                 "was destroyed");
    EXPECT_EQ(none, nullptr);
}

TEST(Handles, AnEngineKeepsItsCommunicator) {
    conclave_comm* comm = nullptr;
    ASSERT_OK(conclave_comm_local(1, &comm));
    TestEngine engine(Config(), comm);
    EXPECT_OK(conclave_comm_destroy(comm));
    const uint64_t id = engine.add(Order());
    engine.run();
    EXPECT_EQ(engine.tokens(id).size(), 4u);
}

TEST(Handles, AreNeverGivenTwice) {
    std::set<conclave_comm*> seen;
    for (int i = 0; i < 1000; ++i) {
        conclave_comm* comms[3] = {};
        ASSERT_OK(conclave_comm_local(3, comms));
        for (conclave_comm* comm : comms) {
            EXPECT_TRUE(seen.insert(comm).second);
            EXPECT_OK(conclave_comm_destroy(comm));
        }
    }
}

TEST(Handles, EnginesComeAndGo) {
    Config config;
    config.load_format = "dummy";
    for (int i = 0; i < 60; ++i) {
        TestEngine engine(config);
        engine.add(Order());
        ASSERT_OK(conclave_engine_step(engine, nullptr));
    }
    config.load_format = "neither";
    conclave_engine* none = nullptr;
    for (int i = 0; i < 60; ++i)
        ASSERT_NE(conclave_engine_create(&config, nullptr, &none), CONCLAVE_OK);
    EXPECT_EQ(none, nullptr);
}

// ---- structs -------------------------------------------------------------------------------

/// `call` with sizes that no version of the struct has; they are refused, the struct left alone.
template <class Struct>
void expect_sizes_are_told(const std::function<conclave_status(Struct*)>& call) {
    Struct s = {};
    for (const size_t size : {size_t{0}, size_t{1}, SIZE_MAX, sizeof s - 1, sizeof s + 8}) {
        std::memset(static_cast<void*>(&s), 0x5a, sizeof s);
        s.struct_size = size;
        Struct before;
        std::memcpy(static_cast<void*>(&before), &s, sizeof s);
        EXPECT_FAILS(call(&s), CONCLAVE_ERROR_STRUCT_SIZE,
                     "expected " + std::to_string(sizeof s) + ", found " + std::to_string(size));
        EXPECT_EQ(std::memcmp(&before, &s, sizeof s), 0);
    }
    EXPECT_FAILS(call(nullptr), CONCLAVE_ERROR_USAGE, "is null");
}

TEST(Structs, OfUnknownSizesAreTold) {
    TestEngine engine;
    const uint64_t id = engine.add(Order());
    uint64_t other = 0;
    char* json = nullptr;
    conclave_engine* none = nullptr;
    conclave_comm* comm = nullptr;
    expect_sizes_are_told<conclave_engine_config>(
        [&](auto* c) { return conclave_engine_create(c, nullptr, &none); });
    expect_sizes_are_told<conclave_engine_config>(
        [&](auto* c) { return conclave_inspect(c, &json); });
    expect_sizes_are_told<conclave_engine_config>(
        [&](auto* c) { return conclave_plan(c, 1, &json); });
    expect_sizes_are_told<conclave_engine_info>(
        [&](auto* i) { return conclave_engine_get_info(engine, i); });
    expect_sizes_are_told<conclave_engine_stats>(
        [&](auto* s) { return conclave_engine_get_stats(engine, s); });
    expect_sizes_are_told<conclave_sequence_config>(
        [&](auto* c) { return conclave_engine_add(engine, c, &other); });
    expect_sizes_are_told<conclave_sequence_state>(
        [&](auto* s) { return conclave_engine_sequence(engine, id, s); });
    expect_sizes_are_told<conclave_transport>(
        [&](auto* t) { return conclave_comm_transport(t, &comm); });
    conclave_step_info info = {};
    info.struct_size = sizeof info - 1;
    EXPECT_FAILS(conclave_engine_step(engine, &info), CONCLAVE_ERROR_STRUCT_SIZE, "step_info");
    EXPECT_EQ(engine.state(id).generated_tokens, 0);
    EXPECT_EQ(other, 0u);
    EXPECT_EQ(json, nullptr);
    EXPECT_EQ(none, nullptr);
    EXPECT_EQ(comm, nullptr);
}

TEST(Structs, InitTakesKnownSizesOnly) {
    conclave_engine_config config;
    conclave_sequence_config sequence;
    for (const size_t wrong : {size_t{0}, size_t{7}, SIZE_MAX}) {
        EXPECT_EQ(conclave_engine_config_init(&config, wrong), CONCLAVE_ERROR_STRUCT_SIZE);
        EXPECT_EQ(conclave_sequence_config_init(&sequence, wrong), CONCLAVE_ERROR_STRUCT_SIZE);
    }
    EXPECT_EQ(conclave_engine_config_init(nullptr, sizeof config), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_sequence_config_init(nullptr, sizeof sequence), CONCLAVE_ERROR_USAGE);
    EXPECT_OK(conclave_engine_config_init(&config, sizeof config));
    EXPECT_EQ(config.struct_size, sizeof config);
    EXPECT_EQ(config.max_num_seqs, 16);
}

// ---- arguments -----------------------------------------------------------------------------

TEST(Arguments, NullPlacesAreTold) {
    TestEngine engine;
    const uint64_t id = engine.add(Order());
    const Config config;
    const Order order;
    size_t count = 5;
    EXPECT_EQ(conclave_engine_create(&config, nullptr, nullptr), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_engine_describe(engine, nullptr), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_engine_add(engine, &order, nullptr), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_engine_tokens(engine, id, nullptr, 0, nullptr), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_engine_tokens(engine, id, nullptr, 3, &count), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_engine_logits(engine, id, nullptr, 3, &count), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_inspect(&config, nullptr), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_plan(&config, 1, nullptr), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_comm_local(1, nullptr), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_plugins_load(nullptr, 0, nullptr), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_tokenizer_open(kShakespeare.c_str(), nullptr), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(count, 5u);
    conclave_free(nullptr);
    Config without_model;
    without_model.model = nullptr;
    conclave_engine* none = nullptr;
    EXPECT_FAILS(conclave_engine_create(&without_model, nullptr, &none), CONCLAVE_ERROR_USAGE,
                 "config->model is null");
}

TEST(Arguments, ThatCannotBeAreTold) {
    char* json = nullptr;
    const Config config;
    conclave_comm* comm = nullptr;
    for (const int32_t ranks : {0, -1, INT32_MIN, INT32_MAX}) {
        EXPECT_EQ(conclave_comm_local(ranks, &comm), CONCLAVE_ERROR_USAGE) << ranks;
        EXPECT_EQ(conclave_plan(&config, ranks, &json), CONCLAVE_ERROR_USAGE) << ranks;
    }
    const std::vector<std::function<void(Config&)>> mistakes = {
        [](Config& c) { c.threads = -1; },
        [](Config& c) { c.max_model_len = -1; },
        [](Config& c) { c.max_model_len = INT64_MAX; },
        [](Config& c) { c.max_num_seqs = 0; },
        [](Config& c) { c.max_num_batched_tokens = INT64_MIN; },
        [](Config& c) { c.kv_cache_tokens = INT64_MAX; },
        [](Config& c) { c.deadline_seconds = std::numeric_limits<double>::quiet_NaN(); },
        [](Config& c) { c.activations = "int3"; },
        [](Config& c) { c.kv_cache_dtype = ""; },
        [](Config& c) { c.expert_parallel = "3x"; },
    };
    for (size_t i = 0; i < mistakes.size(); ++i) {
        Config c;
        mistakes[i](c);
        conclave_engine* none = nullptr;
        EXPECT_EQ(conclave_engine_create(&c, nullptr, &none), CONCLAVE_ERROR_USAGE) << i;
        EXPECT_EQ(none, nullptr);
    }
    Config nowhere("/nowhere");
    conclave_engine* none = nullptr;
    EXPECT_FAILS(conclave_engine_create(&nowhere, nullptr, &none), CONCLAVE_ERROR_MISSING_FILE,
                 "/nowhere");
    EXPECT_EQ(none, nullptr);
}

TEST(Arguments, SequencesThatCannotBeAreTold) {
    const std::vector<std::function<void(Order&)>> mistakes = {
        [](Order& o) { o.text = "both"; },
        [](Order& o) { o.prompt = nullptr, o.prompt_tokens = 0; },
        [](Order& o) { o.prompt = nullptr; },
        [](Order& o) { o.prompt_tokens = 0; },
        [](Order& o) { o.prompt_tokens = SIZE_MAX; },
        [](Order& o) { o.prompt = nullptr, o.text = "no tokenizer", o.prompt_tokens = 0; },
        [](Order& o) { o.max_tokens = -1; },
        [](Order& o) { o.temperature = -1; },
        [](Order& o) { o.temperature = std::numeric_limits<double>::quiet_NaN(); },
        [](Order& o) { o.top_p = 0; },
        [](Order& o) { o.top_k = -1; },
        [](Order& o) { o.min_p = 2; },
        [](Order& o) { o.repetition_penalty = 0; },
        [](Order& o) { o.presence_penalty = std::numeric_limits<double>::infinity(); },
        [](Order& o) { o.logit_bias_count = 1; },
        [](Order& o) { o.stop_count = 1; },
        [](Order& o) {
            static const char* const stop = "x";
            o.stop = &stop, o.stop_count = 1;
        },
        [](Order& o) {
            static const conclave_logit_bias bias = {5, 1000};
            o.logit_bias = &bias, o.logit_bias_count = 1;
        },
        [](Order& o) {
            static const conclave_logit_bias bias = {-5, 1};
            o.logit_bias = &bias, o.logit_bias_count = SIZE_MAX;
        },
    };
    TestEngine engine;
    for (size_t i = 0; i < mistakes.size(); ++i) {
        Order order;
        mistakes[i](order);
        uint64_t id = 99;
        EXPECT_EQ(conclave_engine_add(engine, &order, &id), CONCLAVE_ERROR_USAGE) << i;
        EXPECT_STRNE(conclave_last_error(), "");
        EXPECT_EQ(id, 99u);
    }
    const Order unknown_id({5, 2000}), good;
    uint64_t id = 99;
    EXPECT_EQ(conclave_engine_add(engine, &unknown_id, &id), CONCLAVE_ERROR_USAGE);
    engine.run();
    EXPECT_OK(conclave_engine_add(engine, &good, &id));
}

TEST(Arguments, UnknownSequencesAreTold) {
    TestEngine engine;
    const uint64_t id = engine.add(Order());
    conclave_sequence_state state = {};
    state.struct_size = sizeof state;
    size_t count = 0;
    EXPECT_FAILS(conclave_engine_sequence(engine, 77, &state), CONCLAVE_ERROR_USAGE, "77");
    EXPECT_EQ(conclave_engine_tokens(engine, 77, nullptr, 0, &count), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_engine_text(engine, id, nullptr, 0, &count), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_engine_logits(engine, id, nullptr, 0, &count), CONCLAVE_ERROR_USAGE);
    EXPECT_OK(conclave_engine_cancel(engine, 77));
    EXPECT_OK(conclave_engine_release(engine, id));
    EXPECT_EQ(conclave_engine_release(engine, id), CONCLAVE_ERROR_USAGE);
    engine.run();
}

TEST(Status, NamesAndVersions) {
    EXPECT_EQ(conclave_abi_version(), static_cast<uint32_t>(CONCLAVE_ABI_VERSION));
    EXPECT_STRNE(conclave_version(), "");
    EXPECT_STREQ(conclave_status_name(CONCLAVE_OK), "CONCLAVE_OK");
    EXPECT_STREQ(conclave_status_name(CONCLAVE_ERROR_CALLBACK), "CONCLAVE_ERROR_CALLBACK");
    for (const conclave_status s : {13, -1, CONCLAVE_HOST_STATUS + 42, INT32_MIN, INT32_MAX})
        EXPECT_STREQ(conclave_status_name(s), "CONCLAVE_HOST_STATUS");
}

TEST(Status, TheLastErrorIsTheThreads) {
    EXPECT_EQ(conclave_engine_shutdown(nullptr), CONCLAVE_ERROR_HANDLE);
    const std::string mine = conclave_last_error();
    std::thread([] {
        EXPECT_STREQ(conclave_last_error(), "");
        EXPECT_EQ(conclave_comm_local(0, nullptr), CONCLAVE_ERROR_USAGE);
    }).join();
    EXPECT_EQ(conclave_last_error(), mine);
    conclave_engine_config config;
    EXPECT_OK(conclave_engine_config_init(&config, sizeof config));
    EXPECT_EQ(conclave_last_error(), mine);
}

}  // namespace
}  // namespace conclave::testing
