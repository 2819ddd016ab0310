// Engines over a host's own collectives, which fail at every kind of moment.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/embed/rank.h"
#include "tests/support/thread_transport.h"

namespace conclave::test {
namespace {

const std::string kModel = CONCLAVE_SOURCE_DIR "/tests/fixtures/mixtral";
constexpr conclave_status kOwnStatus = CONCLAVE_HOST_STATUS + 42;

/// What a rank's callbacks are given.
struct User {
    ThreadHost* host;
    int rank;
    bool throws = false;  // its failure is an exception
};

template <class Call>
int32_t called(void* user, Call&& call) {
    auto& u = *static_cast<User*>(user);
    try {
        call(*u.host, u.rank);
        return 0;
    } catch (const Error& e) {
        if (u.throws) throw std::runtime_error("odd end");
        return e.host_status();
    }
}

conclave_transport transport_of(User& user) {
    conclave_transport t{};
    t.struct_size = sizeof t;
    t.user = &user;
    t.rank = user.rank;
    t.size = user.host->ranks();
    t.all_reduce = [](void* u, float* data, size_t count, conclave_reduction reduction) {
        return called(u, [&](ThreadHost& host, int rank) {
            host.all_reduce(rank, data, count, reduction == CONCLAVE_MAX);
        });
    };
    t.all_gather = [](void* u, const void* send, void* recv, const size_t* bytes) {
        return called(u, [&](ThreadHost& host, int rank) {
            host.all_gather(rank, send, recv, {bytes, static_cast<size_t>(host.ranks())});
        });
    };
    t.broadcast = [](void* u, void* data, size_t bytes, int32_t root) {
        return called(u,
                      [&](ThreadHost& host, int rank) { host.broadcast(rank, data, bytes, root); });
    };
    t.barrier = [](void* u) {
        return called(u, [&](ThreadHost& host, int rank) { host.barrier(rank); });
    };
    t.abort = [](void* u, conclave_status status, const char* message) {
        auto& user = *static_cast<User*>(u);
        user.host->abort(user.rank, Error(ErrorCode::kHost, message).host_status(status));
    };
    return t;
}

using Configure = std::function<void(int rank, conclave_engine_config& config)>;

std::vector<Outcome> run_on(ThreadHost& host, const Configure& configure = {}, int thrower = -1) {
    std::vector<Outcome> outcomes(static_cast<size_t>(host.ranks()));
    std::vector<std::thread> threads;
    for (int r = 0; r < host.ranks(); ++r)
        threads.emplace_back([&, r] {
            Outcome& outcome = outcomes[static_cast<size_t>(r)];
            User user{&host, r, r == thrower};
            const conclave_transport transport = transport_of(user);
            conclave_comm* comm = nullptr;
            outcome.status = conclave_comm_transport(&transport, &comm);
            if (outcome.status != CONCLAVE_OK) {
                outcome.error = conclave_last_error();
                return;
            }
            conclave_engine_config config = config_of(kModel);
            if (configure) configure(r, config);
            outcome = run_rank(config, comm);
            EXPECT_EQ(conclave_comm_destroy(comm), CONCLAVE_OK);
        });
    for (std::thread& thread : threads) thread.join();
    return outcomes;
}

const std::vector<std::vector<int32_t>>& single_engine() {
    static const auto tokens = run_rank(config_of(kModel), nullptr).tokens;
    return tokens;
}

TEST(EmbedTransport, TokensAreThoseOfASingleEngine) {
    ASSERT_EQ(single_engine().size(), prompts().size());
    const std::pair<int, const char*> layouts[] = {{1, "auto"}, {2, "tp"},  {3, "tp"}, {3, "ep"},
                                                   {4, "2x2"},  {6, "3x2"}, {6, "2x3"}};
    for (const auto& [ranks, layout] : layouts) {
        ThreadHost host(ranks);
        const char* const expert_parallel = layout;
        const auto outcomes = run_on(host, [&](int, conclave_engine_config& config) {
            config.expert_parallel = expert_parallel;
        });
        for (int r = 0; r < ranks; ++r) {
            const Outcome& outcome = outcomes[static_cast<size_t>(r)];
            EXPECT_EQ(outcome.status, CONCLAVE_OK) << outcome.error;
            EXPECT_EQ(host.aborts_of(r), 0);
        }
        EXPECT_EQ(outcomes[0].tokens, single_engine()) << ranks << " ranks, " << layout;
    }
}

TEST(EmbedTransport, AFailureOfTheHostEndsAllRanksWithItsStatus) {
    // What each rank's functions are called for, if all goes well.
    constexpr int kRanks = 4;
    const auto in_parts = [](int, conclave_engine_config& config) {
        config.expert_parallel = "2x2";
        config.deterministic = 0;
    };
    std::map<std::string, std::vector<int>> calls;
    int all_calls = 0;
    {
        ThreadHost host(kRanks);
        std::mutex mutex;
        host.before = [&](int rank, const std::string& function, int call) {
            const std::lock_guard lock(mutex);
            if (rank == 0) calls[function].push_back(call);
        };
        for (const Outcome& outcome : run_on(host, in_parts)) ASSERT_EQ(outcome.error, "");
        all_calls = host.calls_of(0);
    }
    ASSERT_GE(calls.size(), 3u);
    std::vector<int> moments = {0, 1, all_calls - 1};
    for (const auto& [function, at] : calls)
        for (const size_t part : {0, 1, 2, 3, 4})
            moments.push_back(at[std::min(at.size() - 1, at.size() * part / 4)]);

    for (const int moment : moments)
        for (const int culprit : {0, 2}) {
            ThreadHost host(kRanks);
            std::string failed;
            host.before = [&](int rank, const std::string& function, int call) {
                if (rank != culprit || call != moment) return;
                failed = function;
                throw Error(ErrorCode::kHost, "made up").host_status(kOwnStatus);
            };
            const auto outcomes = run_on(host, in_parts);
            for (int r = 0; r < kRanks; ++r) {
                const Outcome& outcome = outcomes[static_cast<size_t>(r)];
                EXPECT_EQ(outcome.status, kOwnStatus)
                    << "rank " << r << ", call " << moment << " of rank " << culprit << ": "
                    << outcome.error;
                EXPECT_EQ(host.aborts_of(r), 1);
            }
            const std::string& told = outcomes[static_cast<size_t>(culprit)].error;
            EXPECT_NE(told.find("the host's " + failed), std::string::npos) << told;
            EXPECT_NE(told.find("returned 1042"), std::string::npos) << told;
        }
}

TEST(EmbedTransport, ACallbackThatThrowsIsACallbackError) {
    for (const int culprit : {0, 1})
        for (const int moment : {0, 20, 60}) {
            ThreadHost host(2);
            host.before = [&](int rank, const std::string&, int call) {
                if (rank == culprit && call == moment)
                    throw Error(ErrorCode::kHost, "made up").host_status(1);
            };
            const auto outcomes = run_on(host, {}, culprit);
            for (const Outcome& outcome : outcomes)
                EXPECT_EQ(outcome.status, CONCLAVE_ERROR_CALLBACK) << outcome.error;
            const std::string& told = outcomes[static_cast<size_t>(culprit)].error;
            EXPECT_NE(told.find("threw: odd end"), std::string::npos) << told;
        }
}

TEST(EmbedTransport, ErrorsOfOneRankEndAllRanks) {
    // The library's own error, of rank 1 alone, in creating.
    ThreadHost host(3);
    const auto outcomes = run_on(host, [](int rank, conclave_engine_config& config) {
        if (rank == 1) config.threads = -1;
    });
    for (const Outcome& outcome : outcomes) {
        EXPECT_EQ(outcome.status, CONCLAVE_ERROR_USAGE) << outcome.error;
        EXPECT_NE(outcome.error.find("rank 1"), std::string::npos) << outcome.error;
    }
}

TEST(EmbedTransport, AbortIsCancelledOnAllRanks) {
    for (const int asked : {0, 1})
        for (const int from_call : {0, 40}) {  // while loading, or in a step
            ThreadHost host(2);
            std::atomic<bool> stop{false};
            host.before = [&](int rank, const std::string&, int call) {
                if (rank != asked || call < from_call) return;
                stop = true;
                // Polls are 20 ms apart: what is left of the run takes longer than that.
                std::this_thread::sleep_for(std::chrono::milliseconds(5));
            };
            const auto outcomes = run_on(host, [&](int rank, conclave_engine_config& config) {
                if (rank != asked) return;
                config.abort = [](void* user) -> int32_t {
                    return *static_cast<std::atomic<bool>*>(user);
                };
                config.abort_user = &stop;
            });
            for (const Outcome& outcome : outcomes)
                EXPECT_EQ(outcome.status, CONCLAVE_ERROR_CANCELLED) << outcome.error;
        }
}

TEST(EmbedTransport, IncompleteTransportsAreRefused) {
    ThreadHost host(1);
    User user{&host, 0};
    conclave_comm* comm = nullptr;
    conclave_transport t = transport_of(user);
    EXPECT_EQ(conclave_comm_transport(nullptr, &comm), CONCLAVE_ERROR_USAGE);
    EXPECT_EQ(conclave_comm_transport(&t, nullptr), CONCLAVE_ERROR_USAGE);
    t.struct_size -= 8;
    EXPECT_EQ(conclave_comm_transport(&t, &comm), CONCLAVE_ERROR_STRUCT_SIZE);
    for (int field = 0; field < 6; ++field) {
        t = transport_of(user);
        if (field == 0) t.all_reduce = nullptr;
        if (field == 1) t.all_gather = nullptr;
        if (field == 2) t.broadcast = nullptr;
        if (field == 3) t.barrier = nullptr;
        if (field == 4) t.abort = nullptr;
        if (field == 5) t.rank = 1;
        EXPECT_EQ(conclave_comm_transport(&t, &comm), CONCLAVE_ERROR_USAGE) << field;
    }
    EXPECT_EQ(comm, nullptr);
    EXPECT_EQ(host.calls_of(0), 0);
}

}  // namespace
}  // namespace conclave::test
