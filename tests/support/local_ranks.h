// N ranks as threads, for tests.
#pragma once
#include <exception>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/comm/local_communicator.h"

namespace conclave::test {

/// What each rank threw; null where it returned.
using RankFailures = std::vector<std::exception_ptr>;

/// Runs body(communicator of the rank) on each of `ranks` threads and waits for all. A rank that
/// throws poisons its communicator, so that the others' waits end too.
template <class Body>
RankFailures run_ranks_collect(int ranks, Body&& body, const comm::LocalOptions& options = {}) {
    auto comms = comm::make_local(ranks, options);
    RankFailures failures(comms.size());
    std::vector<std::thread> threads;
    for (size_t r = 0; r < comms.size(); ++r)
        threads.emplace_back([&body, &failure = failures[r], own = std::move(comms[r])]() mutable {
            try {
                body(*own);
            } catch (const Error& e) {
                own->poison(e);
                failure = std::current_exception();
            } catch (const std::exception& e) {
                own->poison(Error(ErrorCode::kInternal, e.what()));
                failure = std::current_exception();
            }
            own.reset();
        });
    for (std::thread& thread : threads) thread.join();
    return failures;
}

/// The same; rethrows the failure of the lowest rank that failed.
template <class Body>
void run_ranks(int ranks, Body&& body, const comm::LocalOptions& options = {}) {
    for (const std::exception_ptr& failure :
         run_ranks_collect(ranks, std::forward<Body>(body), options))
        if (failure) std::rethrow_exception(failure);
}

}  // namespace conclave::test
