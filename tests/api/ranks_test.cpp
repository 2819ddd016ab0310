// Several ranks, as threads: followers, ranks that step together, and failures that all get.
#include <atomic>
#include <chrono>

#include "tests/api/support.h"

namespace conclave::testing {
namespace {

/// What one rank generates of a prompt, for comparison.
std::vector<int32_t> alone(int64_t tokens) {
    const TestEngine engine;
    const uint64_t id = engine.add(Order({5, 6, 7}, tokens));
    engine.run();
    return engine.tokens(id);
}

TEST(Ranks, FollowUntilRankZeroShutsDown) {
    const std::vector<int32_t> expected = alone(12);
    for (const int32_t ranks : {2, 3})
        on_ranks(ranks, [&](int32_t rank, conclave_comm* comm) {
            Config config;
            config.deterministic = 1;
            TestEngine engine(config, comm);
            int32_t r = -1, n = -1;
            EXPECT_OK(conclave_comm_rank(comm, &r));
            EXPECT_OK(conclave_comm_size(comm, &n));
            EXPECT_EQ(r, rank);
            EXPECT_EQ(n, ranks);
            conclave_engine_info info = {};
            info.struct_size = sizeof info;
            EXPECT_OK(conclave_engine_get_info(engine, &info));
            EXPECT_EQ(info.rank, rank);
            EXPECT_EQ(info.size, ranks);
            EXPECT_EQ(info.vocab_size, 1024);
            EXPECT_EQ(info.hidden_size, 192);
            EXPECT_EQ(info.layers, 2);
            EXPECT_EQ(info.experts, 5);
            EXPECT_EQ(info.experts_per_token, 2);
            EXPECT_EQ(info.max_model_len, 128);
            EXPECT_EQ(info.has_tokenizer, 0);
            EXPECT_EQ(info.threads, 1);
            if (rank != 0) {
                EXPECT_OK(conclave_engine_follow(engine));
                EXPECT_OK(conclave_engine_follow(engine));  // it is over: returns at once
                return;
            }
            const uint64_t id = engine.add(Order({5, 6, 7}, 12));
            engine.run();
            EXPECT_EQ(engine.tokens(id), expected);
            EXPECT_OK(conclave_engine_shutdown(engine));
            EXPECT_OK(conclave_engine_shutdown(engine));
            EXPECT_FAILS(conclave_engine_step(engine, nullptr), CONCLAVE_ERROR_USAGE, "shut down");
            uint64_t other = 0;
            const Order order;
            EXPECT_EQ(conclave_engine_add(engine, &order, &other), CONCLAVE_ERROR_USAGE);
            EXPECT_EQ(engine.tokens(id), expected);
        });
}

TEST(Ranks, StepTogether) {
    const std::vector<int32_t> expected = alone(5);
    on_ranks(3, [&](int32_t rank, conclave_comm* comm) {
        Config config;
        config.deterministic = 1;
        TestEngine engine(config, comm);
        const uint64_t id = rank == 0 ? engine.add(Order({5, 6, 7}, 5)) : 0;
        conclave_step_info info = {};
        info.struct_size = sizeof info;
        for (int k = 0; k < 7; ++k) {
            ASSERT_OK(conclave_engine_step(engine, &info));
            EXPECT_EQ(info.sequences, k < 5 ? 1 : 0) << "rank " << rank << " step " << k;
            EXPECT_EQ(info.unfinished, rank == 0 && k < 4 ? 1 : 0);
            EXPECT_EQ(info.shut_down, 0);
        }
        if (rank == 0) {
            EXPECT_EQ(engine.tokens(id), expected);
            EXPECT_OK(conclave_engine_shutdown(engine));
            return;
        }
        for (int k = 0; k < 3; ++k) {  // the first meets the shutdown, the others nobody
            ASSERT_OK(conclave_engine_step(engine, &info));
            EXPECT_EQ(info.shut_down, 1);
            EXPECT_EQ(info.sequences, 0);
        }
    });
}

TEST(Ranks, DestroyingRankZeroEndsFollow) {
    on_ranks(2, [&](int32_t rank, conclave_comm* comm) {
        TestEngine engine(Config(), comm);
        if (rank == 0) {
            engine.add(Order({5}, 100));
            EXPECT_OK(conclave_engine_step(engine, nullptr));
        } else {
            EXPECT_OK(conclave_engine_follow(engine));
        }
    });
}

TEST(Ranks, ACommunicatorCarriesOneEngineAfterTheOther) {
    const std::vector<int32_t> expected = alone(3);
    on_ranks(2, [&](int32_t rank, conclave_comm* comm) {
        for (int i = 0; i < 3; ++i) {
            Config config;
            config.deterministic = 1;
            TestEngine engine(config, comm);
            if (rank != 0) {
                EXPECT_OK(conclave_engine_follow(engine));
                continue;
            }
            const uint64_t id = engine.add(Order({5, 6, 7}, 3));
            engine.run();
            EXPECT_EQ(engine.tokens(id), expected);
            EXPECT_OK(conclave_engine_shutdown(engine));
        }
    });
}

TEST(Ranks, OnlyRankZeroHasSequences) {
    on_ranks(2, [&](int32_t rank, conclave_comm* comm) {
        TestEngine engine(Config(), comm);
        if (rank == 0) {
            EXPECT_FAILS(conclave_engine_follow(engine), CONCLAVE_ERROR_USAGE, "rank 0 leads");
            return;
        }
        const Order order;
        uint64_t id = 9;
        size_t count = 9;
        EXPECT_FAILS(conclave_engine_add(engine, &order, &id), CONCLAVE_ERROR_USAGE,
                     "only rank 0 adds");
        EXPECT_EQ(conclave_engine_tokens(engine, 1, nullptr, 0, &count), CONCLAVE_ERROR_USAGE);
        EXPECT_EQ(conclave_engine_release(engine, 1), CONCLAVE_ERROR_USAGE);
        EXPECT_EQ(conclave_engine_shutdown(engine), CONCLAVE_ERROR_USAGE);
        EXPECT_OK(conclave_engine_cancel(engine, 1));
        EXPECT_OK(conclave_engine_follow(engine));
    });
}

TEST(Ranks, AFailingCallbackEndsAllWithItsStatus) {
    for (const bool token : {true, false})
        for (const bool together : {true, false})
            on_ranks(3, [&](int32_t rank, conclave_comm* comm) {
                TestEngine engine(Config(), comm);
                if (rank == 0) {
                    Order order({5, 6}, 20);
                    if (token)
                        order.on_token = [](void*, const conclave_token*) -> int32_t {
                            return CONCLAVE_HOST_STATUS + 42;
                        };
                    else
                        order.on_output_logits = [](void*, uint64_t, int64_t, const float*,
                                                    size_t) -> int32_t {
                            return CONCLAVE_HOST_STATUS + 42;
                        };
                    engine.add(order);
                }
                // A rank that is through with its part of the step learns of it from the next.
                conclave_status status = CONCLAVE_OK;
                if (rank != 0 && !together)
                    status = conclave_engine_follow(engine);
                else
                    for (int k = 0; k < 2 && status == CONCLAVE_OK; ++k)
                        status = conclave_engine_step(engine, nullptr);
                const std::string words = std::string("the host's ") +
                                          (token ? "token" : "logits") + " callback returned";
                EXPECT_EQ(status, CONCLAVE_HOST_STATUS + 42) << "rank " << rank;
                EXPECT_NE(std::string(conclave_last_error()).find(words), std::string::npos)
                    << conclave_last_error();
                EXPECT_EQ(conclave_engine_step(engine, nullptr), CONCLAVE_HOST_STATUS + 42);
                EXPECT_OK(engine.destroy());
            });
}

TEST(Ranks, ABadConfigOfOneIsToldToAll) {
    for (const int32_t bad : {0, 1, 2})
        on_ranks(3, [&](int32_t rank, conclave_comm* comm) {
            Config config;
            if (rank == bad) config.struct_size = 8;
            conclave_engine* none = nullptr;
            EXPECT_FAILS(conclave_engine_create(&config, comm, &none), CONCLAVE_ERROR_STRUCT_SIZE,
                         "rank " + std::to_string(bad));
            EXPECT_EQ(none, nullptr);
            const Config good;  // nothing has begun: the communicator is as it was
            const TestEngine engine(good, comm);
            if (rank != 0) {
                EXPECT_OK(conclave_engine_follow(engine));
            }
        });
}

TEST(Ranks, AbortEndsAWaitOnAll) {
    std::atomic<int> arrived{0};
    on_ranks(3, [&](int32_t rank, conclave_comm* comm) {
        Config config;
        std::atomic<bool> stop{false};
        if (rank == 1) {
            config.abort = [](void* user) -> int32_t {
                return static_cast<std::atomic<bool>*>(user)->load();
            };
            config.abort_user = &stop;
        }
        TestEngine engine(config, comm);
        if (rank == 1) stop = true;
        ++arrived;
        while (rank == 0 && arrived < 3) std::this_thread::yield();
        conclave_status status = CONCLAVE_OK;
        for (int k = 0; k < 2 && status == CONCLAVE_OK; ++k) {
            // Rank 0 stays away from the steps, so that rank 1 waits and is asked.
            if (rank == 0) std::this_thread::sleep_for(std::chrono::milliseconds(60));
            status =
                rank == 0 ? conclave_engine_step(engine, nullptr) : conclave_engine_follow(engine);
        }
        EXPECT_EQ(status, CONCLAVE_ERROR_CANCELLED) << "rank " << rank;
        EXPECT_EQ(conclave_engine_step(engine, nullptr), CONCLAVE_ERROR_CANCELLED);
    });
}

TEST(Ranks, ARankThatLeavesEndsTheOthersWait) {
    on_ranks(2, [&](int32_t rank, conclave_comm* comm) {
        Config config;
        config.deadline_seconds = 100;
        TestEngine engine(config, comm);
        if (rank == 1) return;  // both its handles are destroyed
        engine.add(Order());
        EXPECT_EQ(conclave_engine_step(engine, nullptr), CONCLAVE_ERROR_COMM);
        EXPECT_OK(engine.destroy());
    });
}

TEST(Ranks, TwoEnginesInOneProcess) {
    const std::vector<int32_t> expected = alone(30);
    std::vector<std::thread> engines;
    for (int i = 0; i < 2; ++i)
        engines.emplace_back([&] {
            on_ranks(2, [&](int32_t rank, conclave_comm* comm) {
                Config config;
                config.deterministic = 1;
                TestEngine engine(config, comm);
                if (rank != 0) {
                    EXPECT_OK(conclave_engine_follow(engine));
                    return;
                }
                const uint64_t id = engine.add(Order({5, 6, 7}, 30));
                engine.run();
                EXPECT_EQ(engine.tokens(id), expected);
            });
        });
    for (std::thread& thread : engines) thread.join();
}

}  // namespace
}  // namespace conclave::testing
