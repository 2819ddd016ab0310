// Callbacks that fail, throw or call back in; calls that meet another one.
#include <atomic>
#include <chrono>
#include <functional>
#include <stdexcept>

#include "tests/api/support.h"

namespace conclave::testing {
namespace {

/// What a host hangs on the user pointers: one function for all callbacks, and which was called.
struct Host {
    std::function<int32_t()> act = [] { return 0; };
    std::atomic<int> calls{0};

    int32_t call() {
        ++calls;
        return act();
    }
    static void log(void* user, conclave_log_level, const char*) {
        static_cast<Host*>(user)->call();
    }
    static int32_t progress(void* user, uint64_t, uint64_t, double) {
        return static_cast<Host*>(user)->call();
    }
    static int32_t ask(void* user) { return static_cast<Host*>(user)->call(); }
    static int32_t token(void* user, const conclave_token*) {
        return static_cast<Host*>(user)->call();
    }
    static int32_t logits(void* user, uint64_t, int64_t, const float*, size_t) {
        return static_cast<Host*>(user)->call();
    }
};

/// The callbacks of steps, and how an order gets each.
const std::vector<std::pair<std::string, std::function<void(Order&, Host&)>>> kOfSteps = {
    {"token", [](Order& o, Host& h) { o.on_token = Host::token, o.token_user = &h; }},
    {"logits",
     [](Order& o, Host& h) { o.on_prompt_logits = Host::logits, o.prompt_logits_user = &h; }},
    {"logits",
     [](Order& o, Host& h) { o.on_output_logits = Host::logits, o.output_logits_user = &h; }},
};

TEST(StepCallbacks, FailTheStepWithTheirStatus) {
    for (const auto& [name, set] : kOfSteps)
        for (const int32_t status : {CONCLAVE_HOST_STATUS + 42, 1, -5, INT32_MIN, INT32_MAX}) {
            Host host;
            host.act = [&, status = status] { return status; };
            TestEngine engine;
            Order order;
            set(order, host);
            const uint64_t id = engine.add(order);
            const std::string words =
                "the host's " + name + " callback returned " + std::to_string(status);
            EXPECT_FAILS(conclave_engine_step(engine, nullptr), status, words);
            EXPECT_EQ(host.calls, 1);
            EXPECT_FAILS(conclave_engine_step(engine, nullptr), status, words);
            EXPECT_FAILS(conclave_engine_shutdown(engine), status, words);
            uint64_t other = 0;
            EXPECT_FAILS(conclave_engine_add(engine, &order, &other), status, words);
            EXPECT_EQ(host.calls, 1);
            EXPECT_EQ(engine.tokens(id).size(), name == "token" ? 1u : 0u);
            EXPECT_OK(conclave_engine_release(engine, id));
        }
}

TEST(StepCallbacks, ThatThrowAreTold) {
    for (const auto& [name, set] : kOfSteps) {
        Host host;
        host.act = [&]() -> int32_t { throw std::runtime_error("an egg fell"); };
        TestEngine engine;
        Order order;
        set(order, host);
        engine.add(order);
        EXPECT_FAILS(conclave_engine_step(engine, nullptr), CONCLAVE_ERROR_CALLBACK,
                     "the host's " + name + " callback threw: an egg fell");
        EXPECT_EQ(conclave_engine_step(engine, nullptr), CONCLAVE_ERROR_CALLBACK);
    }
    Host host;
    host.act = [&]() -> int32_t { throw 7; };
    TestEngine engine;
    Order order;
    order.on_token = Host::token, order.token_user = &host;
    engine.add(order);
    EXPECT_FAILS(conclave_engine_step(engine, nullptr), CONCLAVE_ERROR_CALLBACK, "token");
}

TEST(StepCallbacks, TokensOfOtherSequencesCanStillBeRead) {
    Host host;
    host.act = [&] { return CONCLAVE_HOST_STATUS; };
    TestEngine engine;
    Order failing;
    failing.on_token = Host::token, failing.token_user = &host;
    const uint64_t a = engine.add(failing), b = engine.add(Order({9, 8}));
    EXPECT_EQ(conclave_engine_step(engine, nullptr), CONCLAVE_HOST_STATUS);
    EXPECT_EQ(engine.tokens(a).size(), 1u);
    EXPECT_EQ(engine.tokens(b).size(), 1u);
    EXPECT_EQ(engine.state(b).finish, CONCLAVE_FINISH_NONE);
}

TEST(StepCallbacks, AbortEndsTheStepOrThrows) {
    for (const bool throws : {false, true}) {
        Host host;
        Config config;
        config.abort = Host::ask, config.abort_user = &host;
        TestEngine engine(config);
        host.act = [&]() -> int32_t {
            if (throws) {
                throw std::runtime_error("no answer");
            }
            return 1;
        };
        engine.add(Order({5}, 100));
        conclave_status status = CONCLAVE_OK;
        while (status == CONCLAVE_OK) {  // it is asked every 20 ms
            std::this_thread::sleep_for(std::chrono::milliseconds(25));
            status = conclave_engine_step(engine, nullptr);
        }
        const conclave_status expected =
            throws ? CONCLAVE_ERROR_CALLBACK : CONCLAVE_ERROR_CANCELLED;
        EXPECT_EQ(status, expected) << conclave_last_error();
        const int calls = host.calls;
        EXPECT_FAILS(conclave_engine_step(engine, nullptr), expected,
                     throws ? "abort callback threw: no answer" : "asked to stop");
        EXPECT_EQ(host.calls, calls);
    }
}

/// Every function on an engine's handle, and on its communicator's, from where none may be called.
void expect_busy(conclave_engine* engine, conclave_comm* comm, int32_t* calls) {
    ++*calls;
    const Order order;
    const Config config;
    uint64_t id = 99;
    size_t count = 99;
    int32_t number = 99;
    char* text = nullptr;
    conclave_engine* other = nullptr;
    conclave_engine_info info = {};
    info.struct_size = sizeof info;
    EXPECT_FAILS(conclave_engine_step(engine, nullptr), CONCLAVE_ERROR_BUSY, "under way");
    EXPECT_EQ(conclave_engine_follow(engine), CONCLAVE_ERROR_BUSY);
    EXPECT_EQ(conclave_engine_shutdown(engine), CONCLAVE_ERROR_BUSY);
    EXPECT_EQ(conclave_engine_destroy(engine), CONCLAVE_ERROR_BUSY);
    EXPECT_EQ(conclave_engine_add(engine, &order, &id), CONCLAVE_ERROR_BUSY);
    EXPECT_EQ(conclave_engine_release(engine, 1), CONCLAVE_ERROR_BUSY);
    EXPECT_EQ(conclave_engine_tokens(engine, 1, nullptr, 0, &count), CONCLAVE_ERROR_BUSY);
    EXPECT_EQ(conclave_engine_get_info(engine, &info), CONCLAVE_ERROR_BUSY);
    EXPECT_EQ(conclave_engine_describe(engine, &text), CONCLAVE_ERROR_BUSY);
    EXPECT_EQ(conclave_comm_rank(comm, &number), CONCLAVE_ERROR_BUSY);
    EXPECT_EQ(conclave_comm_destroy(comm), CONCLAVE_ERROR_BUSY);
    EXPECT_EQ(conclave_engine_create(&config, comm, &other), CONCLAVE_ERROR_BUSY);
    EXPECT_EQ(id, 99u);
    EXPECT_EQ(count, 99u);
    EXPECT_EQ(number, 99);
    EXPECT_EQ(other, nullptr);
    EXPECT_OK(conclave_engine_cancel(engine, 12345));
    EXPECT_STREQ(conclave_status_name(CONCLAVE_ERROR_BUSY), "CONCLAVE_ERROR_BUSY");
}

TEST(Busy, FromCallbacksOfSteps) {
    for (const auto& [name, set] : kOfSteps) {
        conclave_comm* comm = nullptr;
        ASSERT_OK(conclave_comm_local(1, &comm));
        TestEngine engine(Config(), comm);
        Host host;
        int32_t calls = 0;
        host.act = [&] {
            expect_busy(engine, comm, &calls);
            return 0;
        };
        Order order;
        set(order, host);
        const uint64_t id = engine.add(order);
        engine.run();
        EXPECT_GT(calls, 0) << name;
        EXPECT_EQ(engine.tokens(id).size(), 4u);
        EXPECT_OK(conclave_comm_destroy(comm));
    }
}

TEST(Busy, FromTheAbortCallbackOfAStep) {
    conclave_comm* comm = nullptr;
    ASSERT_OK(conclave_comm_local(1, &comm));
    Host host;
    Config config;
    config.abort = Host::ask, config.abort_user = &host;
    TestEngine engine(config, comm);
    int32_t calls = 0;
    host.act = [&] {
        expect_busy(engine, comm, &calls);
        return 0;
    };
    const uint64_t id = engine.add(Order({1, 2, 3}, 100));
    while (calls == 0 && engine.state(id).finish == CONCLAVE_FINISH_NONE) {
        std::this_thread::sleep_for(std::chrono::milliseconds(25));  // it is asked every 20 ms
        ASSERT_OK(conclave_engine_step(engine, nullptr));
    }
    EXPECT_GT(calls, 0);
    EXPECT_OK(conclave_comm_destroy(comm));
}

TEST(Busy, WhileLoading) {
    conclave_comm* comm = nullptr;
    ASSERT_OK(conclave_comm_local(1, &comm));
    Host host;
    host.act = [&] {
        int32_t number = 0;
        EXPECT_EQ(conclave_comm_size(comm, &number), CONCLAVE_ERROR_BUSY);
        const Config config;
        conclave_engine* other = nullptr;
        EXPECT_EQ(conclave_engine_create(&config, comm, &other), CONCLAVE_ERROR_BUSY);
        char* json = nullptr;
        EXPECT_OK(conclave_plan(&config, 2, &json));  // belongs to no handle
        conclave_free(json);
        return 0;
    };
    Config config;
    config.progress = Host::progress, config.progress_user = &host;
    TestEngine engine(config, comm);
    EXPECT_GT(host.calls, 0);
    EXPECT_OK(conclave_comm_destroy(comm));
}

TEST(Busy, ASecondThread) {
    conclave_comm* comm = nullptr;
    ASSERT_OK(conclave_comm_local(1, &comm));
    TestEngine engine(Config(), comm), other;
    Event inside, go_on;
    Host host;
    host.act = [&] {
        if (host.calls == 1) {
            inside.set();
            go_on.wait();
        }
        return 0;
    };
    Order order({5, 6}, 6);
    order.on_token = Host::token, order.token_user = &host;
    const uint64_t id = engine.add(order), cancelled = engine.add(Order({7}, 30));
    std::thread stepper([&] { engine.run(); });
    inside.wait();
    int32_t calls = 0;
    expect_busy(engine, comm, &calls);
    EXPECT_OK(conclave_engine_cancel(engine, cancelled));
    const uint64_t elsewhere = other.add(Order());
    other.run();
    EXPECT_EQ(other.tokens(elsewhere).size(), 4u);
    go_on.set();
    stepper.join();
    EXPECT_EQ(engine.tokens(id).size(), 6u);
    EXPECT_EQ(engine.state(cancelled).finish, CONCLAVE_FINISH_CANCELLED);
    EXPECT_EQ(engine.tokens(cancelled).size(), 1u);
    EXPECT_OK(conclave_comm_destroy(comm));
}

// ---- callbacks of loading ------------------------------------------------------------------

/// More ranks than the model has heads, of which rank 0 warns: so there is something to log.
constexpr int32_t kCrowd = 7;

const std::vector<std::pair<std::string, std::function<void(Config&, Host&)>>> kOfLoading = {
    {"log", [](Config& c, Host& h) { c.log = Host::log, c.log_user = &h; }},
    {"progress", [](Config& c, Host& h) { c.progress = Host::progress, c.progress_user = &h; }},
    {"abort", [](Config& c, Host& h) { c.abort = Host::ask, c.abort_user = &h; }},
};

void expect_loading_fails(const std::function<int32_t()>& act, const std::string& which,
                          conclave_status status) {
    for (const auto& [name, set] : kOfLoading) {
        if (name != which) continue;
        Host host;
        host.act = act;
        on_ranks(kCrowd, [&, &set = set](int32_t rank, conclave_comm* comm) {
            Config config;
            if (rank == 0) set(config, host);
            conclave_engine* none = nullptr;
            EXPECT_EQ(conclave_engine_create(&config, comm, &none), status)
                << "rank " << rank << ": " << conclave_last_error();
            EXPECT_EQ(none, nullptr);
        });
        EXPECT_EQ(host.calls, 1);
    }
}

TEST(LoadCallbacks, FailOnAllRanks) {
    const auto fails = [] { return CONCLAVE_HOST_STATUS + 7; };
    expect_loading_fails(fails, "progress", CONCLAVE_HOST_STATUS + 7);
    expect_loading_fails(fails, "abort", CONCLAVE_ERROR_CANCELLED);
}

TEST(LoadCallbacks, ThatThrowFailOnAllRanks) {
    for (const char* which : {"log", "progress", "abort"})
        expect_loading_fails([]() -> int32_t { throw std::logic_error("no"); }, which,
                             CONCLAVE_ERROR_CALLBACK);
}

TEST(LoadCallbacks, AreCalled) {
    struct Seen {
        std::vector<std::string> messages;
        uint64_t bytes = 0, total = 0;
    } seen;
    on_ranks(kCrowd, [&](int32_t rank, conclave_comm* comm) {
        Config config;
        if (rank == 0) {
            config.log = [](void* user, conclave_log_level level, const char* message) {
                EXPECT_LE(level, CONCLAVE_LOG_ERROR);
                static_cast<Seen*>(user)->messages.emplace_back(message);
            };
            config.log_user = &seen;
            config.progress = [](void* user, uint64_t bytes, uint64_t total, double) {
                static_cast<Seen*>(user)->bytes = bytes;
                static_cast<Seen*>(user)->total = total;
                return 0;
            };
            config.progress_user = &seen;
        }
        const TestEngine engine(config, comm);
        if (rank != 0) {
            EXPECT_OK(conclave_engine_follow(engine));
        }
    });
    ASSERT_FALSE(seen.messages.empty());
    EXPECT_GT(seen.total, 0u);
    EXPECT_EQ(seen.bytes, seen.total);
}

// ---- cancel and abort ----------------------------------------------------------------------

TEST(Cancel, FromATokenCallback) {
    struct Cancels {
        conclave_engine* engine;
        int calls = 0;
        int32_t finish = 0;
    };
    TestEngine engine;
    Cancels user{engine};
    Order order({5}, 100);
    order.token_user = &user;
    order.on_token = [](void* p, const conclave_token* token) {
        auto& c = *static_cast<Cancels*>(p);
        EXPECT_EQ(token->struct_size, sizeof *token);
        c.finish = token->finish;
        if (++c.calls == 3) {
            EXPECT_OK(conclave_engine_cancel(c.engine, token->sequence));
        }
        if (c.calls > 3) {
            EXPECT_EQ(token->token, -1);
        }
        return 0;
    };
    const uint64_t id = engine.add(order);
    engine.run();
    EXPECT_EQ(user.calls, 4);
    EXPECT_EQ(user.finish, CONCLAVE_FINISH_CANCELLED);
    EXPECT_EQ(engine.tokens(id).size(), 3u);
    EXPECT_EQ(engine.state(id).finish, CONCLAVE_FINISH_CANCELLED);
    EXPECT_OK(conclave_engine_cancel(engine, id));
    EXPECT_OK(conclave_engine_cancel(engine, 4711));
    engine.run();
}

TEST(Cancel, FromManyThreadsAtOnce) {
    TestEngine engine;
    std::vector<uint64_t> ids;
    for (int i = 0; i < 24; ++i) ids.push_back(engine.add(Order({5, i}, 60)));
    std::vector<std::thread> threads;
    for (size_t t = 0; t < 3; ++t)
        threads.emplace_back([&, t] {
            for (size_t i = t; i < ids.size(); i += 3) {
                EXPECT_OK(conclave_engine_cancel(engine, ids[i]));
                EXPECT_OK(conclave_engine_cancel(engine, 1000000 + i));
            }
        });
    for (int i = 0; i < 5; ++i) EXPECT_OK(conclave_engine_step(engine, nullptr));
    for (std::thread& thread : threads) thread.join();
    engine.run();
    for (const uint64_t id : ids) EXPECT_EQ(engine.state(id).finish, CONCLAVE_FINISH_CANCELLED);
}

TEST(Release, EndsASequenceAndItsCallbacks) {
    TestEngine engine;
    Host host;
    Order order({5}, 100);
    order.on_token = Host::token, order.token_user = &host;
    const uint64_t id = engine.add(order);
    ASSERT_OK(conclave_engine_step(engine, nullptr));
    EXPECT_EQ(host.calls, 1);
    EXPECT_OK(conclave_engine_release(engine, id));
    engine.run();
    EXPECT_EQ(host.calls, 1);
    conclave_step_info info = {};
    info.struct_size = sizeof info;
    ASSERT_OK(conclave_engine_step(engine, &info));
    EXPECT_EQ(info.sequences, 0);
    EXPECT_EQ(info.unfinished, 0);
}

}  // namespace
}  // namespace conclave::testing
