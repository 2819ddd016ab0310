#include <gtest/gtest.h>

#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "runtime/comm/callback_communicator.h"
#include "tests/comm/collective_cases.h"
#include "tests/support/thread_transport.h"

namespace conclave::test {
namespace {

/// Runs body(communicator) on every rank of `host`. What a rank throws is its failure; it does not
/// poison, which would hide what the communicator does by itself.
template <class Body>
std::vector<std::exception_ptr> run_on(ThreadHost& host, Body&& body) {
    std::vector<std::exception_ptr> failures(static_cast<size_t>(host.ranks()));
    std::vector<std::thread> threads;
    for (int r = 0; r < host.ranks(); ++r)
        threads.emplace_back([&, r] {
            try {
                const auto comm = comm::make_callback(host.transport(r));
                body(*comm);
            } catch (...) {
                failures[static_cast<size_t>(r)] = std::current_exception();
            }
        });
    for (std::thread& thread : threads) thread.join();
    return failures;
}

Error error_of(const std::exception_ptr& failure) {
    try {
        if (failure) std::rethrow_exception(failure);
    } catch (const Error& e) {
        return e;
    }
    return Error(ErrorCode::kInternal, "nothing was thrown");
}

std::vector<CollectiveCase> cases() {
    std::vector<CollectiveCase> all;
    for (const CollectiveCase& test : kCollectiveCases)
        if (!test.own_waits) all.push_back(test);
    return all;
}

class Transports : public testing::TestWithParam<std::tuple<int, CollectiveCase>> {};

TEST_P(Transports, Case) {
    const int ranks = std::get<0>(GetParam());
    const CollectiveCase test = std::get<1>(GetParam());
    ThreadHost host(ranks);
    for (const auto& failure : run_on(host, [&](comm::Communicator& comm) {
             EXPECT_STREQ(comm.backend(), "transport");
             EXPECT_EQ(comm.hosts(), 1);
             EXPECT_EQ(comm.local_rank(), comm.rank());
             test.body(comm);
         }))
        if (failure) std::rethrow_exception(failure);
    for (int r = 0; r < ranks; ++r) EXPECT_EQ(host.aborts_of(r), 0);
}

INSTANTIATE_TEST_SUITE_P(
    , Transports, testing::Combine(testing::Values(1, 2, 3, 4, 7), testing::ValuesIn(cases())),
    [](const auto& info) {
        return "r" + std::to_string(std::get<0>(info.param)) + "_" + std::get<1>(info.param).name;
    });

/// A little of everything, of all ranks and of parts.
void some_of_each(comm::Communicator& comm) {
    const auto part = comm.split(comm.rank() % 2, 0);
    std::vector<float> data(100, 1);
    for (comm::Communicator* c : {&comm, part.get(), &comm}) {
        c->all_reduce_sum(data.data(), data.size());
        c->broadcast(data.data(), 40, c->size() - 1);
        c->all_reduce_max(data.data(), 7);
        c->barrier();
        std::vector<float> all(data.size() * static_cast<size_t>(c->size()));
        c->all_gather(data.data(), all.data(),
                      std::vector<size_t>(static_cast<size_t>(c->size()), 400));
    }
}

TEST(TransportFailures, WhatAFunctionThrowsEndsAllRanks) {
    int calls = 0;  // of one rank, if all goes well
    {
        ThreadHost host(4);
        run_on(host, some_of_each);
        calls = host.calls_of(0);
    }
    ASSERT_GT(calls, 20);
    for (int call = 0; call < calls; ++call)
        for (const int culprit : {0, 3}) {
            ThreadHost host(4);
            host.before = [&](int rank, const std::string& function, int at) {
                if (rank == culprit && at == call)
                    throw Error(ErrorCode::kHost, function + " went wrong").host_status(1042);
            };
            int after = 0;
            const auto failures = run_on(host, [&](comm::Communicator& comm) {
                try {
                    some_of_each(comm);
                } catch (const Error& first) {
                    const int before = host.calls_of(comm.rank());
                    const auto same = [&](auto&& collective) {
                        try {
                            collective();
                            ADD_FAILURE() << "it stays failed";
                        } catch (const Error& again) {
                            EXPECT_STREQ(again.what(), first.what());
                            EXPECT_EQ(again.host_status(), 1042);
                        }
                    };
                    float value = 1;
                    same([&] { comm.barrier(); });
                    same([&] { comm.all_reduce_sum(&value, 1); });
                    same([&] { comm.split(0, 0); });
                    comm.poison(Error(ErrorCode::kUsage, "too late"));
                    same([&] { comm.broadcast(&value, 4, 0); });
                    EXPECT_EQ(host.calls_of(comm.rank()), before) << "only abort may be called";
                    if (comm.rank() == culprit) ++after;
                    throw;
                }
            });
            for (int r = 0; r < 4; ++r) {
                const Error error = error_of(failures[static_cast<size_t>(r)]);
                EXPECT_EQ(error.code(), ErrorCode::kHost) << error.what();
                EXPECT_EQ(error.host_status(), 1042);
                EXPECT_NE(
                    std::string(error.what()).find("went wrong: rank " + std::to_string(culprit)),
                    std::string::npos)
                    << error.what();
                EXPECT_EQ(host.aborts_of(r), 1);
            }
            EXPECT_EQ(after, call == 0 ? 0 : 1);  // the first call is the constructor's
        }
}

TEST(TransportFailures, OtherExceptionsAreTheHosts) {
    for (int kind = 0; kind < 3; ++kind) {
        ThreadHost host(2);
        host.before = [&](int rank, const std::string& function, int) {
            if (rank != 1 || function != "barrier") return;
            if (kind == 0) throw std::runtime_error("odd end");
            if (kind == 1) throw 7;
            throw std::bad_alloc();
        };
        const char* const words[] = {"the host's barrier threw: odd end: rank 1",
                                     "the host's barrier threw: rank 1",
                                     "out of memory in barrier: rank 1"};
        const auto code = kind < 2 ? ErrorCode::kHost : ErrorCode::kResource;
        for (const auto& failure : run_on(host, [](comm::Communicator& comm) { comm.barrier(); })) {
            EXPECT_EQ(error_of(failure).code(), code);
            EXPECT_STREQ(error_of(failure).what(), words[kind]);
        }
    }
}

TEST(TransportFailures, PoisonOfOneRankWakesTheOthers) {
    for (const bool by_part : {false, true}) {
        ThreadHost host(3);
        const auto failures = run_on(host, [&](comm::Communicator& comm) {
            const auto part = comm.split(comm.rank() / 2, 0);
            if (comm.rank() != 2) return comm.barrier();
            const Error error(ErrorCode::kMissingFile, "gone");
            by_part ? part->poison(error) : comm.poison(error);
            comm.barrier();
        });
        for (int r = 0; r < 3; ++r) {
            EXPECT_EQ(error_of(failures[static_cast<size_t>(r)]).code(), ErrorCode::kMissingFile);
            EXPECT_STREQ(error_of(failures[static_cast<size_t>(r)]).what(), "gone: rank 2");
            EXPECT_EQ(host.aborts_of(r), 1);
        }
    }
}

TEST(TransportFailures, AbortIsAskedBeforeEachCollective) {
    ThreadHost host(3);
    const auto failures = run_on(host, [&](comm::Communicator& comm) {
        int polls = 0;
        if (comm.rank() == 1) comm.set_abort([&] { return ++polls == 3; });
        for (;;) comm.barrier();
    });
    for (const auto& failure : failures) {
        EXPECT_EQ(error_of(failure).code(), ErrorCode::kCancelled);
        EXPECT_STREQ(error_of(failure).what(), "the host asked to stop: rank 1");
    }
}

TEST(TransportFailures, CollectivesThatNeverMeetAreTold) {
    ThreadHost host(3);
    const auto failures = run_on(host, [&](comm::Communicator& comm) {
        const auto part = comm.split(comm.rank() / 2, 0);
        if (comm.rank() == 0)
            part->barrier();  // with rank 1, which is not there
        else
            comm.barrier();
    });
    for (const auto& failure : failures)
        EXPECT_EQ(error_of(failure).code(), ErrorCode::kInternal) << error_of(failure).what();
}

TEST(TransportFailures, WholeAndSinglePartsCostNoRounds) {
    ThreadHost host(3);
    std::mutex mutex;
    std::vector<std::string> functions;
    host.before = [&](int rank, const std::string& function, int) {
        const std::lock_guard lock(mutex);
        if (rank == 0) functions.push_back(function);
    };
    run_on(host, [&](comm::Communicator& comm) {
        const auto all = comm.split(5, comm.rank());
        const auto alone = comm.split(comm.rank(), 0);
        comm.barrier();
        {
            const std::lock_guard lock(mutex);
            if (comm.rank() == 0) functions.clear();
        }
        float value = 1;
        all->all_reduce_sum(&value, 1);
        EXPECT_EQ(value, 3);
        alone->all_reduce_sum(&value, 1);
        alone->barrier();
        comm.broadcast(&value, 4, 1);
    });
    EXPECT_EQ(functions, (std::vector<std::string>{"all_reduce", "broadcast"}));
}

TEST(TransportFailures, WhatIsIncompleteIsRefused) {
    ThreadHost host(2);
    const auto refusal = [&](auto&& spoil) -> std::string {
        Transport t = host.transport(0);
        spoil(t);
        try {
            comm::make_callback(std::move(t));
        } catch (const Error& e) {
            EXPECT_EQ(e.code(), ErrorCode::kUsage);
            return e.what();
        }
        return "";
    };
    EXPECT_EQ(refusal([](Transport& t) { t.all_reduce = nullptr; }),
              "a transport has no function all_reduce");
    EXPECT_EQ(refusal([](Transport& t) { t.all_gather = nullptr; }),
              "a transport has no function all_gather");
    EXPECT_EQ(refusal([](Transport& t) { t.broadcast = nullptr; }),
              "a transport has no function broadcast");
    EXPECT_EQ(refusal([](Transport& t) { t.barrier = nullptr; }),
              "a transport has no function barrier");
    EXPECT_EQ(refusal([](Transport& t) { t.abort = nullptr; }),
              "a transport has no function abort");
    const std::string text = "a transport's rank is not one of its ranks: found rank ";
    EXPECT_EQ(refusal([](Transport& t) { t.rank = 2; }), text + "2 of 2");
    EXPECT_EQ(refusal([](Transport& t) { t.rank = -1; }), text + "-1 of 2");
    EXPECT_EQ(refusal([](Transport& t) { t.size = 0; }), text + "0 of 0");
    EXPECT_EQ(host.calls_of(0), 0);
}

}  // namespace
}  // namespace conclave::test
