// Engines through the C interface, for tests.
#pragma once
#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/api/conclave.h"

namespace conclave::testing {

/// Two layers, no tokenizer: loads in a few milliseconds.
inline const std::string kTiny = CONCLAVE_SOURCE_DIR "/tests/fixtures/qwen3moe-odd";
/// With a tokenizer.
inline const std::string kShakespeare = CONCLAVE_SOURCE_DIR "/launch/examples/shakespeare";

#define EXPECT_OK(call) EXPECT_EQ((call), CONCLAVE_OK) << conclave_last_error()
#define ASSERT_OK(call) ASSERT_EQ((call), CONCLAVE_OK) << conclave_last_error()
/// Also that the last error has `text` in it.
#define EXPECT_FAILS(call, status, words)                                            \
    do {                                                                             \
        EXPECT_EQ((call), (status)) << conclave_last_error();                        \
        EXPECT_NE(std::string(conclave_last_error()).find(words), std::string::npos) \
            << conclave_last_error();                                                \
    } while (false)

struct Config : conclave_engine_config {
    explicit Config(const char* path = kTiny.c_str()) {
        EXPECT_OK(conclave_engine_config_init(this, sizeof(conclave_engine_config)));
        model = path;
        activations = "f32";
        threads = 1;
        max_model_len = 128;
        deadline_seconds = 60;
    }
};

/// A sequence of ids, which it holds.
struct Order : conclave_sequence_config {
    explicit Order(std::vector<int32_t> ids = {5, 6, 7}, int64_t tokens = 4)
        : ids_(std::move(ids)) {
        EXPECT_OK(conclave_sequence_config_init(this, sizeof(conclave_sequence_config)));
        prompt = ids_.data();
        prompt_tokens = ids_.size();
        max_tokens = tokens;
        ignore_eos = 1;
    }
    Order(const Order&) = delete;
    Order& operator=(const Order&) = delete;

  private:
    std::vector<int32_t> ids_;
};

/// An engine of one rank, or one of a communicator's.
class TestEngine {
  public:
    explicit TestEngine(const conclave_engine_config& config = Config(),
                        const conclave_comm* comm = nullptr) {
        EXPECT_OK(conclave_engine_create(&config, comm, &handle_));
    }
    ~TestEngine() {
        if (handle_) {
            EXPECT_OK(conclave_engine_destroy(handle_));
        }
    }
    TestEngine(const TestEngine&) = delete;
    TestEngine& operator=(const TestEngine&) = delete;

    operator conclave_engine*() const { return handle_; }
    conclave_status destroy() { return conclave_engine_destroy(std::exchange(handle_, nullptr)); }

    uint64_t add(const conclave_sequence_config& order) const {
        uint64_t id = 0;
        EXPECT_OK(conclave_engine_add(handle_, &order, &id));
        return id;
    }
    /// Steps until a step has nothing to do.
    void run() const {
        conclave_step_info info = {};
        info.struct_size = sizeof info;
        do {
            ASSERT_OK(conclave_engine_step(handle_, &info));
        } while (info.sequences > 0);
    }
    std::vector<int32_t> tokens(uint64_t id) const {
        size_t count = 0;
        EXPECT_OK(conclave_engine_tokens(handle_, id, nullptr, 0, &count));
        std::vector<int32_t> ids(count, -7);
        EXPECT_OK(conclave_engine_tokens(handle_, id, ids.data(), ids.size(), &count));
        return ids;
    }
    std::string text(uint64_t id) const {
        size_t bytes = 0;
        EXPECT_OK(conclave_engine_text(handle_, id, nullptr, 0, &bytes));
        std::string all(bytes, '#');
        EXPECT_OK(conclave_engine_text(handle_, id, all.data(), all.size(), &bytes));
        return all;
    }
    conclave_sequence_state state(uint64_t id) const {
        conclave_sequence_state s = {};
        s.struct_size = sizeof s;
        EXPECT_OK(conclave_engine_sequence(handle_, id, &s));
        return s;
    }

  private:
    conclave_engine* handle_ = nullptr;
};

/// body(rank, communicator of the rank) on threads, one a rank.
template <class Body>
void on_ranks(int32_t ranks, Body&& body) {
    std::vector<conclave_comm*> comms(static_cast<size_t>(ranks));
    ASSERT_OK(conclave_comm_local(ranks, comms.data()));
    std::vector<std::thread> threads;
    for (int32_t r = 0; r < ranks; ++r)
        threads.emplace_back([&body, r, comm = comms[static_cast<size_t>(r)]] {
            body(r, comm);
            EXPECT_OK(conclave_comm_destroy(comm));
        });
    for (std::thread& thread : threads) thread.join();
}

/// Something that one thread waits for and another does.
class Event {
  public:
    void set() {
        const std::lock_guard lock(mutex_);
        happened_ = true;
        changed_.notify_all();
    }
    void wait() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return happened_; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool happened_ = false;
};

}  // namespace conclave::testing
